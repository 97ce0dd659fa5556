package waitqueue

// EmptyLines is how many lines without waiters are kept.
func (q *Queue) EmptyLines() int {
	q.mu.Lock()
	defer q.mu.Unlock()

	return len(q.empty.lines)
}
