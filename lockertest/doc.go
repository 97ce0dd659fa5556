// Package lockertest breaks locks on purpose, in the tests of programs that use them. What does a job do whose lock is
// lost, whose database hangs, whose place another process has taken?
//
//   - [Lose] ends the tenure of a lock: its context ends with a cause that matches pglocker.ErrLockLost.
//   - [Take] lets another holder win. The old one isn't told before its next renewal, as one that was paused.
//   - [Freeze] stops the database without closing a connection. [StartServer] starts one to be frozen.
//
// All three act on a real PostgreSQL, such as those of package pgtesting, and by the library's own methods. They fail
// the test at once (Fatal) if they can't do what they are for. So call them from the test's own goroutine.
package lockertest
