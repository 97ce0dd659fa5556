// Package analysis finds three mistakes in programs that use pglocker. Each compiles, and works until a lock is
// lost:
//
//   - The context outside of Do's function is used in it. It doesn't end with the lock, so the work goes on beside
//     the next holder's. [Context] reports it.
//   - Do's function ignores its context, and waits, or calls what could take it. [Context] reports that too.
//   - A lock is taken, and a path leads to the end of the function without Unlock. The lock is renewed until the
//     Locker is closed or the process ends. [Unlock] reports it.
//
// "Do's function" is that of Locker.Do, Locker.DoAll, Semaphore.Do, Election.Run, or of any other method of
// pglocker that takes a context and a function of a context.
//
// The command pglockervet runs both, alone or by go vet:
//
//	go install github.com/ismurov/pglocker/analysis/cmd/pglockervet@latest
//	go vet -vettool=$(which pglockervet) ./...
//
// A report is meant to be a mistake: one more catch isn't worth a false alarm. It may still be wrong about work that can't be
// interrupted. The analyzers say nothing where they can't be sure:
//
//   - of tests, Example functions aside, because tests do these things on purpose;
//   - of a call that is given both contexts, or the lock; that cleans up, logs or reads values, by its name or by what it
//     does; or that comes after an error or after the end of the lock's context;
//   - of a function that watches its context itself, by context.AfterFunc or in a goroutine;
//   - of a lock that is stored, passed on or captured by a closure, and of one whose context is stored, returned, or given
//     to a function that may release it;
//   - of a function that Do is given as a variable.
package analysis
