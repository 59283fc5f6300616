package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// clockTicks is the number of ticks in a second for processor times in /proc, the
// same on every architecture that Go supports.
const clockTicks = 100

// procStat is what is used of /proc/PID/stat (proc(5)).
type procStat struct {
	parent int
	ticks  int64 // of the process and of its ended children
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the process name may contain anything
	if len(f) < 15 {
		return procStat{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	var st procStat
	if st.parent, err = strconv.Atoi(string(f[1])); err != nil {
		return st, err
	}
	for _, v := range f[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return st, err
		}
		st.ticks += n
	}
	return st, nil
}

// processTree returns the living processes from root downwards. Others may come
// and go while it reads.
func processTree(root int) (map[int]procStat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[int]procStat{}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if err != nil {
			continue // it has just ended
		}
		all[pid] = st
		children[st.parent] = append(children[st.parent], pid)
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("no process %d", root)
	}
	tree := map[int]procStat{}
	unseen := []int{root}
	for len(unseen) > 0 {
		pid := unseen[len(unseen)-1]
		unseen = append(unseen[:len(unseen)-1], children[pid]...)
		tree[pid] = all[pid]
	}
	return tree, nil
}

// treeCPU returns the processor seconds used so far by the processes from root
// downwards, ended ones included.
func treeCPU(root int) (float64, error) {
	tree, err := processTree(root)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, st := range tree {
		ticks += st.ticks
	}
	return float64(ticks) / clockTicks, nil
}

// treePSS returns the octets of memory of the processes from root downwards,
// each page shared by n processes counted for 1/n.
func treePSS(root int) (int64, error) {
	tree, err := processTree(root)
	if err != nil {
		return 0, err
	}
	var total int64
	for pid := range tree {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has just ended
		}
		total += pss(b)
	}
	if total == 0 {
		return 0, fmt.Errorf("cannot read the memory of process %d", root)
	}
	return total, nil
}

// pss returns the octets in the line "Pss: N kB" of smaps_rollup.
func pss(rollup []byte) int64 {
	for line := range bytes.Lines(rollup) {
		if rest, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				kib, _ := strconv.ParseInt(string(f[0]), 10, 64) // the kernel writes a number
				return kib << 10
			}
		}
	}
	return 0
}

// memoryWatch samples the memory of a process tree.
type memoryWatch struct {
	stop chan struct{}
	done sync.WaitGroup
	peak int64
}

// watchMemory samples until end is called. Root 0 means that there is no tree.
func watchMemory(root int) *memoryWatch {
	const interval = 100 * time.Millisecond
	w := &memoryWatch{stop: make(chan struct{})}
	if root == 0 {
		return w
	}
	w.done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			if v, err := treePSS(root); err == nil {
				w.peak = max(w.peak, v)
			}
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

// end stops sampling and returns the highest PSS in octets, 0 if unknown.
func (w *memoryWatch) end() int64 {
	close(w.stop)
	w.done.Wait()
	return w.peak
}
