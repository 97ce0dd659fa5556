// Package pglockercertmagic gives any storage of github.com/caddyserver/certmagic the locks of pglocker: one process of
// many obtains or renews a certificate, while the files may be on a disk that can't lock.
//
//	locks, err := pglockercertmagic.NewLocker(locker, "certmagic: ", 30*time.Second)
//	if err != nil {
//		return err
//	}
//
//	certmagic.Default.Storage = pglockercertmagic.NewStorage(&certmagic.FileStorage{Path: "/shared/certs"}, locks)
//
// All processes that share the storage must use the same table and prefix.
package pglockercertmagic
