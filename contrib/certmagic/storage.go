package pglockercertmagic

import "github.com/caddyserver/certmagic"

// Storage keeps files in one place and locks in another. It is a certmagic.Storage, certmagic.TryLocker and
// certmagic.LockLeaseRenewer.
type Storage struct {
	*Locker
	files
}

// files is a level deeper than [Locker], whose Lock and Unlock therefore are Storage's.
type files struct{ certmagic.Storage }

var _ certmagic.Storage = (*Storage)(nil)

// NewStorage returns a Storage that keeps files in storage. The locks of storage aren't used.
func NewStorage(storage certmagic.Storage, locks *Locker) *Storage {
	return &Storage{Locker: locks, files: files{storage}}
}
