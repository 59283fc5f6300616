package proxy

import (
	"container/list"
	"time"
)

// counters counts events by key, for at most capacity keys. A key is forgotten
// when it has had no event for the duration of window.
type counters struct {
	capacity int
	window   time.Duration
	entries  map[uint64]*list.Element
	order    list.List // of *counter, the longest without one first
}

type counter struct {
	key  uint64
	n    int
	last time.Time
}

func newCounters(capacity int, window time.Duration) counters {
	return counters{capacity: capacity, window: window, entries: make(map[uint64]*list.Element)}
}

// count returns the number of events of key.
func (m *counters) count(now time.Time, key uint64) int {
	m.expire(now)
	e := m.entries[key]
	if e == nil {
		return 0
	}
	return e.Value.(*counter).n
}

// add counts an event of key.
func (m *counters) add(now time.Time, key uint64) {
	m.expire(now)
	e := m.entries[key]
	if e == nil {
		if len(m.entries) >= m.capacity {
			m.drop(m.order.Front())
		}
		e = m.order.PushBack(&counter{key: key})
		m.entries[key] = e
	}
	ev := e.Value.(*counter)
	ev.n++
	ev.last = now
	m.order.MoveToBack(e)
}

// expire forgets the keys whose window is over.
func (m *counters) expire(now time.Time) {
	for e := m.order.Front(); e != nil && now.Sub(e.Value.(*counter).last) >= m.window; e = m.order.Front() {
		m.drop(e)
	}
}

func (m *counters) drop(e *list.Element) {
	delete(m.entries, e.Value.(*counter).key)
	m.order.Remove(e)
}
