package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"reflect"
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
var SQLFloor = sqlFloor

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
	}

	take := func() []request { return reqs }

	if verb == "release" {
		for i, a := range s.lanes.release.askMany(ctx, take) {
			asked[i].Matched, asked[i].Err, asked[i].Unknown = len(a.rows) == 1, a.err, a.outcome == unknown
		}

		return nil
	}

	lane := map[string]*lane[Row]{
		"acquire": s.lanes.acquire, "insert": s.lanes.insert, "refresh": s.lanes.refresh,
		"get": s.lanes.get, "look": s.lanes.look,
	}[verb]

	for i, a := range lane.askMany(ctx, take) {
		asked[i].Matched, asked[i].Err, asked[i].Unknown = len(a.rows) == 1, a.err, a.outcome == unknown
		if len(a.rows) == 1 {
			asked[i].Row = a.rows[0]
		}
	}

	return nil
}

// DB is the handle that the store is on.
func (s *Store) DB() *sql.DB { return s.db }

// Texts are all statements for a table of six columns or of three, by their names.
func Texts(full bool) map[string]string {
	return texts(Table{Schema: "s", Name: "t"}, full, true, textIdentity)
}

func texts(table Table, full, floor bool, id identity) map[string]string {
	st := reflect.ValueOf(render(table, full, floor, id))
	texts := make(map[string]string)

	for i := range st.NumField() {
		texts[st.Type().Field(i).Name] = st.Field(i).String()
	}

	return texts
}

// AllTexts is everything that is sent, for every shape of a table, by names.
func AllTexts() map[string]string {
	all := map[string]string{
		"table":          onPrimary(sqlTable),
		"identity":       onPrimary(sqlIdentity),
		"timeline":       onPrimary(sqlTimeline),
		"read only":      onPrimary(sqlReadOnly),
		"migration lock": sqlMigrationLock,
		"notify":         sqlNotify,
		"by index":       sqlByIndex,
		"lacking":        sqlLacking,
		"as it is":       sqlAsItIs,
		"refused":        sqlRefused,
		"accepted":       sqlAccepted,
		"no floor":       onPrimary(sqlNoFloor),
		"table blockers": blockersOf(sqlLocksOfTable),
		"key blockers":   blockersOf(sqlLocksOfKey),
		"holders":        holdersOf(Table{Schema: "s", Name: "t"}, sqlXmax),
		"group holders":  holdersOf(Table{Schema: "s", Name: "t"}, sqlMembers),
	}

	for i, ddl := range []string{ddlSchema, ddlTable, ddlSetStorage(description{})} {
		all[fmt.Sprintf("ddl %d", i)] = strings.NewReplacer("{schema}", `"s"`, "{table}", `"s"."t"`).Replace(ddl)
	}

	for _, c := range addedColumns {
		all["add "+c.name] = strings.ReplaceAll(ddlAddColumn, "{table}", `"s"."t"`) + c.name + " " + c.kind
	}

	for _, full := range []bool{false, true} {
		for _, floor := range []bool{false, true} {
			id := textIdentity
			id.keyed, id.datesOdd = floor, floor

			for name, text := range texts(Table{Schema: "s", Name: "t"}, full, floor, id) {
				all[fmt.Sprintf("%s, full %t, floor %t", name, full, floor)] = text
			}
		}
	}

	return all
}
