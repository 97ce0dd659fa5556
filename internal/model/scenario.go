package model

// Scenario says which clients there are, what they do, and how much goes wrong. Each of
// [Scenarios] is about a part of the protocol: a small one is checked fast.
type Scenario struct {
	Name    string
	Clients int
	// TTL, Margin and Horizon are in ticks of the clock, which stops at Horizon.
	TTL, Margin, Horizon uint8
	// Tries is how many grants a client may request. Renewals is how many renewals all
	// clients send.
	Tries, Renewals uint8

	// Clients take, renew and release the lock. What else they do:

	// Guard: holders, present and past, write in guarded transactions.
	Guard bool
	// Fence: they write to a resource elsewhere, which compares tokens.
	Fence bool
	// Seen: the last client refreshes by a status that it has read, held or free.
	Seen bool
	// Refresh: holders of a lease refresh it, and get a new token.
	Refresh bool
	// Hold is a minimum hold, in ticks from the release.
	Hold uint8
	// HandOver: the first two clients are one process, and hand over to each other.
	HandOver bool
	// SlowCommit: there is a moment between execution and commit.
	SlowCommit bool

	// How often each fault happens, at most.

	Losses, Pauses, Crashes, Promotions, Steps uint8
	// Prunes is how often the row is deleted, at most.
	Prunes uint8
	// Step is by how much the database's clock is stepped.
	Step int8
	// Behind: the standby may lack commits that were acknowledged. Otherwise it has all
	// that were flushed, as a synchronous one does.
	Behind bool

	// NotPromised are the promises whose assumptions the faults above break.
	NotPromised []Property
}

// Scenarios are those in which the promises have to hold.
var Scenarios = []Scenario{
	{
		Name:    "lost replies",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 4, Tries: 1, Renewals: 1, Losses: 2,
	},
	{
		Name:    "one tenure after another",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 5, Tries: 2, Losses: 1,
	},
	{
		Name:    "longer leases",
		Clients: 2, TTL: 4, Margin: 1, Horizon: 6, Tries: 1, Losses: 1,
	},
	{
		Name:    "pauses and a fenced resource",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 5, Tries: 1, Renewals: 2, Pauses: 1, Fence: true,
	},
	{
		Name:    "guarded transactions and pauses",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 5, Tries: 1, Renewals: 1, Pauses: 1, Guard: true,
	},
	{
		Name:    "guarded transactions beside commits that take a while",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 5, Tries: 1, Pauses: 1, Guard: true, SlowCommit: true,
	},
	{
		Name:    "a crash",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 5, Tries: 1, Renewals: 1, Crashes: 1, Hold: 4, SlowCommit: true,
	},
	{
		Name:    "a crash and lost replies",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Losses: 1, Crashes: 1,
	},
	{
		Name:    "a crash, and a status that was seen before it",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 2, Crashes: 1, Seen: true,
	},
	{
		Name:    "leases that are refreshed, and a crash",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 4, Tries: 2, Crashes: 1, Refresh: true,
	},
	{
		Name:    "hand-over in a process of two",
		Clients: 3, TTL: 3, Margin: 1, Horizon: 4, Tries: 1, HandOver: true,
	},
	{
		Name:    "hand-over and lost replies",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Losses: 2, HandOver: true,
	},
	{
		Name:    "promotion of a standby that has all commits",
		Clients: 2, TTL: 3, Margin: 1, Horizon: 5, Tries: 1, Renewals: 1, Promotions: 1, Hold: 4,
	},
	{
		Name:    "promotion of a standby that lacks commits",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Promotions: 1, Behind: true,
		Guard: true, Fence: true,
		NotPromised: []Property{OneHolder, HolderStopsFirst, Durable},
	},
	{
		Name:    "a prune beside first grants",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 2, Prunes: 2,
	},
	{
		Name:    "a prune, and lost replies",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Losses: 1, Prunes: 1,
	},
	{
		Name:    "a prune, and a status that was seen before it",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 3, Tries: 2, Prunes: 1, Seen: true,
	},
	{
		Name:    "a prune and a crash",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Crashes: 1, Prunes: 1,
	},
	{
		Name:    "a prune, and promotion of a standby that lacks commits",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Promotions: 1, Prunes: 1, Behind: true, Fence: true,
		NotPromised: []Property{OneHolder, HolderStopsFirst, Durable},
	},
	{
		Name:    "a clock that steps by less than the margin",
		Clients: 2, TTL: 4, Margin: 2, Horizon: 6, Tries: 1, Renewals: 1, Steps: 1, Step: 1,
	},
	{
		Name:    "a clock that jumps",
		Clients: 2, TTL: 2, Margin: 1, Horizon: 4, Tries: 1, Pauses: 1, Steps: 1, Step: 3, Guard: true, Fence: true,
		NotPromised: []Property{OneHolder, HolderStopsFirst},
	},
}

// Deeper is a scenario with a later horizon, and one more renewal and loss. It takes
// minutes where the scenario takes a second.
func (s Scenario) Deeper() Scenario {
	s.Horizon++

	if s.Renewals > 0 {
		s.Renewals++
	}

	if s.Losses > 0 {
		s.Losses++
	}

	return s
}

type Property string

const (
	// TokensGrow is G1: "Each grant of a lock has a token that no grant of that lock had
	// before, and that is larger than all of them."
	TokensGrow Property = "G1, tokens only grow"
	// OneHolder is G2: "Two holders never believe at the same moment that they hold the
	// same lock."
	OneHolder Property = "G2, one holder at a time"
	// OnlyHolder is G3: "A renewal, a refresh or a release names the generation that it is
	// for, and does nothing if the lock has another. Who lost the lock can't disturb who
	// has it now."
	OnlyHolder Property = "G3, only the holder renews and releases"
	// Durable is G4: "When a grant or a renewal was acknowledged, it is as durable as a
	// synchronous commit", and "A minimum hold (WithMinHold) is kept."
	Durable Property = "G4, what you were told is durable"
	// UnknownIsUnknown is G5: "A request whose reply was lost may have been carried out,
	// or be about to be. pglocker never takes it for granted, nor for refused."
	UnknownIsUnknown Property = "G5, unknown is unknown"
	// Returned is of G5, too: "What may have been granted is then given back in the background".
	Returned Property = "G5, a grant that no client wants is returned"
	// HolderStopsFirst is G6: the context "is cancelled ... before the database can grant
	// the lock to another".
	HolderStopsFirst Property = "G6, the holder stops first"
	// NoStaleWrite is G8. With the guard: "If the transaction commits, its writes were
	// made under the lock." With the token: "After the first write of a new holder it then
	// takes none of an older one".
	NoStaleWrite Property = "G8, no stale write commits"
)

type Mutant string

// [Check] must catch each mutant. [TestMutants] names the scenario.
const (
	NoMutant Mutant = ""

	RenewAnyGeneration   Mutant = "no generation check on renew"
	RenewRevives         Mutant = "a renewal revives a lease"
	ReleaseAnyGeneration Mutant = "no generation check on release"
	TermFromReply        Mutant = "the local deadline is counted from the reply"
	TermFromRepetition   Mutant = "the term of a settled grant is counted from the repetition"
	NoMargin             Mutant = "no margin"
	BelieveUntilReleased Mutant = "belief ends when the release is answered"
	TransactionsClock    Mutant = "now() for clock_timestamp() in a transaction that is open for longer"
	DeleteOnRelease      Mutant = "rows are deleted on release"
	LazyGrants           Mutant = "grants aren't durable"
	LazyHold             Mutant = "a minimum hold isn't durable"
	AckBeforeCommit      Mutant = "a grant counts before its commit"
	UnknownIsFree        Mutant = "an unknown acquire is reported as refused"
	UnknownIsHeld        Mutant = "an unknown acquire is reported as held"
	GrantSettlesAll      Mutant = "when a repetition is granted, the first attempt is forgotten"
	WeakGuard            Mutant = "the guard is FOR KEY SHARE, and keeps no takeover off"
	NoFloor              Mutant = "the timeline isn't part of the token"
	PlainWatermark       Mutant = "a first grant reads the watermark without locking it"
	NoWatermark          Mutant = "a first grant doesn't read the watermark"
	DeleteFirst          Mutant = "a prune deletes before it raises the watermark"
	SeenByGeneration     Mutant = "a status that was seen free is compared by generation alone"
)
