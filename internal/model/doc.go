// Package model is the protocol of pglocker, small enough to look at every state that
// it can reach: two or three clients, one lock, a clock of a few ticks, and a few
// faults. [Check] walks through all of it, breadth first, and ends with the first
// state in which a promise of docs/guarantees.md is broken, by the shortest way there
// is.
//
// It is written after docs/protocol.md and the statements of internal/store, and
// shares no code with them. What a real server and a real process do is the matter of
// the other tests; this one asks whether the rules are right if everybody keeps them,
// in every order of events. That it would notice is shown by its [Mutant]s, each of
// which breaks one rule, and must be caught.
//
// What is in it:
//
//   - The row, as the server shows it, as it would be after a crash, and as a standby
//     has it that fell behind. Synchronous commits are flushed, and with them all that
//     came before; others are flushed at any later moment, or never.
//   - Requests that are sent, executed, committed and answered, each at a moment of its
//     own, and the clock may tick in between. Whether an answer is lost before or after
//     the execution is not for the client to know: it asks again under another name,
//     confirms the first, or leaves and gives back, while the first request may still be
//     under way, and after the second was granted and released.
//   - Holders that renew, refresh, release, hand over, keep the lock for a minimum
//     time; that are paused, and go on to write as if nothing had happened, in a
//     guarded transaction or with their token to a resource elsewhere.
//   - Crashes, promotions of a standby that has all or lacks some, and steps of the
//     database's clock.
//
// What is not: waiting, notifications and fairness, which decide when somebody asks and
// never what the answer is; requests of several in one statement, which are the same
// requests, each on a row of its own; and G7 and G9, which aren't about states.
package model
