//go:build integration

package dovecottest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// children returns the processes of parent whose program is called name.
func children(parent int, name string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		// pid (name) state parent ...: the name may contain anything, even ")".
		head, tail, ok := strings.Cut(string(stat), "(")
		end := strings.LastIndexByte(tail, ')')
		if !ok || head == "" || end < 0 {
			continue
		}
		fields := strings.Fields(tail[end+1:])
		if tail[:end] == name && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
