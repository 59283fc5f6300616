// Package turn has waiters take turns: a round robin over the groups that they
// belong to, so that no group, however many it sends, pushes the others back.
package turn

import "container/list"

// Queue is who waits, by group. The zero value is an empty queue. It is not safe
// for concurrent use.
type Queue[K comparable, V any] struct {
	groups map[K]*list.Element
	order  list.List // of *group[K], whose turn is next first
	n      int
}

// group is the waiters of one group.
type group[K comparable] struct {
	key     K
	waiters list.List // of *Waiter, the oldest first
}

// Waiter is one place in a Queue.
type Waiter[V any] struct {
	Value V // of the caller

	// Turn is closed by whoever calls Next, when the waiter's turn has come.
	Turn chan struct{}

	group *list.Element // in Queue.order
	place *list.Element // in its group; nil once it no longer waits
}

// Len returns how many wait.
func (q *Queue[K, V]) Len() int { return q.n }

// Add appends a waiter with a value to its group.
func (q *Queue[K, V]) Add(key K, v V) *Waiter[V] {
	e := q.groups[key]
	if e == nil {
		if q.groups == nil {
			q.groups = make(map[K]*list.Element)
		}
		e = q.order.PushBack(&group[K]{key: key})
		q.groups[key] = e
	}
	w := &Waiter[V]{Value: v, Turn: make(chan struct{}), group: e}
	w.place = e.Value.(*group[K]).waiters.PushBack(w)
	q.n++
	return w
}

// Next removes the waiter whose turn it is, and returns it; nil if none waits.
// Its group is then the last in turn.
func (q *Queue[K, V]) Next() *Waiter[V] {
	e := q.order.Front()
	if e == nil {
		return nil
	}
	w := e.Value.(*group[K]).waiters.Front().Value.(*Waiter[V])
	q.Remove(w)
	if q.groups[e.Value.(*group[K]).key] == e {
		q.order.MoveToBack(e)
	}
	return w
}

// Remove removes w, and reports whether it still waited.
func (q *Queue[K, V]) Remove(w *Waiter[V]) bool {
	if w.place == nil {
		return false
	}
	g := w.group.Value.(*group[K])
	g.waiters.Remove(w.place)
	w.place = nil
	q.n--
	if g.waiters.Len() == 0 {
		delete(q.groups, g.key)
		q.order.Remove(w.group)
	}
	return true
}
