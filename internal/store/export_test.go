package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What these write is for tests on a server.
var (
	TextArray    = textArray
	BigintArray  = bigintArray
	QuoteLiteral = quoteLiteral
)

// SQLFloor is the expression for the floor of the server's timeline.
var SQLFloor = qualified(sqlFloor)

// Asked is a request that goes with others in one statement, and its answer.
type Asked struct {
	ID         string
	Owner      string
	Generation int64
	TTL        time.Duration

	// Matched: the statement had a row for it, which is Row unless it was a release.
	Matched bool
	Row     Row
	Err     error
	Unknown bool
}

// AskTogether sends requests of one kind in one statement.
func AskTogether(ctx context.Context, s *Store, verb string, asked []*Asked) error {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return err
	}

	slices.SortStableFunc(asked, func(a, b *Asked) int { return cmp.Compare(a.ID, b.ID) })

	reqs := make([]request, len(asked))
	for i, a := range asked {
		reqs[i] = request{
			shape: sh, id: a.ID, owner: a.Owner, ttl: Microseconds(a.TTL), generation: a.Generation,
		}
		if verb == "unwanted" {
			reqs[i].owners = textArray([]string{a.Owner})
		}
	}

	take := func() []request { return reqs }

	if lane := map[string]*lane[bool]{"release": s.lanes.release, "unwanted": s.lanes.unwanted}[verb]; lane != nil {
		for i, a := range lane.askMany(ctx, take) {
			asked[i].Matched, asked[i].Err, asked[i].Unknown = len(a.rows) == 1, a.err, a.outcome == unknown
		}

		return nil
	}

	lane := map[string]*lane[Row]{
		"acquire": s.lanes.acquire, "insert": s.lanes.insert, "refresh": s.lanes.refresh,
		"create": s.lanes.create, "settle": s.lanes.settle, "get": s.lanes.get, "look": s.lanes.look,
	}[verb]

	for i, a := range lane.askMany(ctx, take) {
		asked[i].Matched, asked[i].Err, asked[i].Unknown = len(a.rows) == 1, a.err, a.outcome == unknown
		if len(a.rows) == 1 {
			asked[i].Row = a.rows[0]
		}
	}

	return nil
}

// GuardArgs are the arguments of GuardSQL for database/sql.
func (s *Store) GuardArgs(id string, generation int64) []any {
	return s.arguments([]any{id, generation})
}

// PgxConnOf returns the connection of pgx in one of database/sql.
func PgxConnOf(driverConn any) (pgxConn, bool) { return pgxConnOf(driverConn) }

// PgxConnOf is PgxConnOf with a memory.
func (s *Store) PgxConnOf(driverConn any) (pgxConn, bool) { return s.pgxConnOf(driverConn) }

// GuardFailed is what becomes of a guard's error.
func (s *Store) GuardFailed(err error) error { return s.guardFailed(err) }

// DB is the handle that the store is on.
func (s *Store) DB() *sql.DB { return s.handle.db }

// Texts are all statements for a table of six columns or of three, by their names.
func Texts(full bool) map[string]string {
	return textsOf(Table{Schema: "s", Name: "t"}, form{full: full, floor: true})
}

func textsOf(table Table, f form) map[string]string {
	st := render(table, f)
	all := map[string]string{
		"grantAll": st.grantAll(), "grantAllOrTell": st.grantAllOrTell(), "releaseAll": st.releaseAll(), "guard": st.guard(), "guardAll": newWriter(table, f).one(nil, sqlGuardAll), "unwantedLast": st.unwantedLast(),
		"list": st.list().behind, "listFrom": st.list().from, "idlePage": st.prune().page, "prune": st.prune().prune,
		"clock": st.clock(), "makeWatermark": st.prune().makeWatermark, "readWatermark": st.prune().readWatermark, "raiseWatermark": st.prune().raiseWatermark,
	}

	for name, v := range map[string]*verb{
		"acquire": &acquire, "try": &try, "claim": &claim, "refresh": &refresh, "renew": &renew, "release": &release,
		"insert": &insert, "create": &create, "get": &get, "look": &look, "held": &held,
		"slots": &slots, "settleSlots": &settleSlots, "unwantedSlots": &unwantedSlots, "releaseSlot": &releaseSlot,
		"passGate": &passGate, "markGate": &markGate, "intend": &intend, "handSlots": &handSlots,
		"settle": &settle, "unwanted": &unwanted, "markHeld": &markHeld,
		"force": &force, "resign": &resign, "logTerm": &logTerm, "announce": &announce,
	} {
		t := st.of(v)
		all[name], all[name+"Many"], all[name+"ManyDated"], all[name+"ManyByID"] = t.one, t.many, t.dated, t.byID
		all[name+"Together"] = t.together
	}

	maps.DeleteFunc(all, func(_, text string) bool { return text == "" })

	return all
}

// AllTexts is everything that is sent, for every shape of a table, by names.
func AllTexts() map[string]string {
	all := map[string]string{
		"table":          onPrimary(sqlTable),
		"usual":          onPrimary(sqlUsual),
		"timeline":       onPrimary(sqlTimeline),
		"read only":      onPrimary(sqlReadOnly),
		"migration lock": sqlMigrationLock,
		"notify":         sqlNotify,
		"by index":       sqlByIndex,
		"in transaction": sqlInTransaction,
		"transaction":    sqlTransaction,
		"plain table":    sqlPlainTable,
		"shards":         onPrimary(sqlShards),
		"lacking":        sqlLacking,
		"installed":      onPrimary(sqlInstalled),
		"as it is":       sqlAsItIs,
		"refused":        sqlRefused,
		"accepted":       sqlAccepted,
		"no floor":       onPrimary(sqlNoFloor),
		"may prune":      onPrimary(sqlMayPrune),
		"open":           onPrimary(sqlOpenTransactions),
		"bytewise":       sqlBytewise,
		"table holders":  holdersOf(Table{Schema: "s", Name: "t"}, sqlLocksOfTable),
		"key holders":    holdersOf(Table{Schema: "s", Name: "t"}, sqlLocksOfKey),
		"holders":        holdersOf(Table{Schema: "s", Name: "t"}, sqlLocksOfRow),
		"group holders":  holdersOf(Table{Schema: "s", Name: "t"}, sqlLocksOfMembers),
	}

	maps.Copy(all, functionTexts())
	addHistoryTexts(all)

	for i, ddl := range []string{ddlSchema, ddlTable, ddlSetStorage(description{})} {
		all[fmt.Sprintf("ddl %d", i)] = strings.NewReplacer("{schema}", `"s"`, "{table}", `"s"."t"`).Replace(ddl)
	}

	for _, c := range addedColumns {
		all["add "+c.name] = strings.ReplaceAll(ddlAddColumn, "{table}", `"s"."t"`) + c.name + " " + c.kind
	}

	for _, full := range []bool{false, true} {
		for _, floor := range []bool{false, true} {
			f := form{full: full, floor: floor, keyed: floor, datesOdd: floor}

			for name, text := range textsOf(Table{Schema: "s", Name: "t"}, f) {
				all[fmt.Sprintf("%s, full %t, floor %t", name, full, floor)] = text
			}

			for i, plain := range plainForms(f) {
				for name, text := range textsOf(Table{Schema: "s", Name: "t"}, plain) {
					all[fmt.Sprintf("%s, full %t, floor %t, plain %d", name, full, floor, i)] = text
				}
			}
		}
	}

	return all
}

// functionTexts are the statements that make the functions, as TestNothingIsLeftToTheSearchPath reads
// them: heads and bodies apart, without comments and the block's label.
func functionTexts() map[string]string {
	comment := regexp.MustCompile(`(?m) *--.*$`)
	texts := make(map[string]string)

	for _, f := range functions {
		body := f.bodyFor(Table{Schema: "s", Name: "t"})
		texts["function "+f.name] = strings.ReplaceAll(f.create(Table{Schema: "s", Name: "t"}), body, "")
		texts["body of "+f.name] = strings.TrimPrefix(strings.TrimSpace(comment.ReplaceAllString(body, "")), "<<v>>\n")
		texts["drop "+f.name] = f.drop(Table{Schema: "s", Name: "t"})
	}

	return texts
}

// FunctionsFile is what migrations/0002_functions.sql has below its head.
func FunctionsFile() string {
	var b strings.Builder

	for _, f := range functions {
		b.WriteString("\n" + f.create(Table{Schema: "pglocker", Name: plainTable}) + ";\n")
	}

	return b.String()
}

// Looks are what the quick look at the table says, "" if it leaves that to the thorough one, and what the latter says.
func Looks(ctx context.Context, s *Store) (quick, thorough string) {
	if f, ok, err := s.usual(ctx); ok && err == nil {
		quick = fmt.Sprintf("%+v", f)
	}

	d, err := s.description(ctx)
	if err == nil {
		err = s.usable(d)
	}

	if err != nil || d.secured {
		return quick, fmt.Sprint("refused or hidden: ", err)
	}

	floor, _ := s.hasTimeline(ctx)

	return quick, fmt.Sprintf("%+v", d.form(floor))
}
