package pglocker

// SetLocalRun sets how often in a row a lock is handed over inside the process
// where others wait, before first use. Zero switches it off.
func (l *Locker) SetLocalRun(n int) { l.localRun = n }
