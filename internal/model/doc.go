// Package model is the protocol of pglocker, so small that every state can be looked at:
// two or three clients, one lock, a clock of a few ticks, and a few faults. [Check] walks
// through all states, breadth first. It ends with the first state in which a promise of
// docs/guarantees.md is broken, and the shortest way there.
//
// The model is written after docs/protocol.md and the statements of internal/store, and
// shares no code with them. Other tests are about real servers and processes; this one asks
// whether the rules are right, in every order of events. Its [Mutant]s show that it would
// notice: each breaks one rule, and must be caught.
//
// It has:
//
//   - The row: as the server shows it, as a crash leaves it, and as a standby that fell
//     behind has it. A synchronous commit is flushed with all that came before it. Any other
//     commit is flushed at any later moment, or never.
//   - Requests that are sent, executed, committed and answered, each at a moment of its
//     own. A client whose reply is lost doesn't know whether the request was executed. It sends
//     the request again under another name, settles the first, or leaves and returns the grant.
//   - Holders that renew, refresh, release, hand over, and keep the lock for a minimum
//     time. Holders that are paused, and then write in a guarded transaction or with their
//     token.
//   - Prunes, which delete the row of a free lock, beside first grants that read the watermark and insert the row
//     later.
//   - Crashes, promotions of a standby that has all commits or lacks some, and steps of the
//     database's clock.
//
// It lacks the moment when the watermark is made, and waiting, notifications and fairness, which decide when a request is sent, but
// not what its answer is. It lacks batches, which are the same requests on a row each, and
// G7 and G9, which aren't about states.
package model
