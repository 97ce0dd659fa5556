package top

import (
	"slices"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func TestQuery(t *testing.T) {
	t.Parallel()

	rows := table()
	rows[3].ExpiresAt = t0.Add(time.Second) // the lease of the leader of billing ends first

	for _, test := range []struct {
		query Query
		want  []string
	}{
		{Query{Order: ByAge}, []string{"import/42", "billing", "config", "nightly", "a:b", "schema", "cleanup"}},
		{Query{Order: ByWait}, []string{"config", "nightly", "a:b", "import/42", "billing", "schema", "cleanup"}},
		{Query{Order: ByLease}, []string{"billing", "a:b", "config", "import/42", "nightly", "schema", "cleanup"}},
		{Query{Order: ByName}, []string{"a:b", "billing", "cleanup", "config", "import/42", "nightly", "schema"}},
		{Query{Text: "WEB-2"}, []string{"config", "a:b"}},
		{Query{Text: "NIGHT"}, []string{"nightly"}},
		{Query{Kind: pglocker.KindElection}, []string{"billing", "cleanup"}},
		{Query{Kind: pglocker.KindElection, Text: "web"}, []string{"billing"}},
		{Query{Text: "nothing"}, nil},
	} {
		var all, at []string
		for _, r := range test.query.arrange(folded(Query{}, rows...).Rows) {
			all = append(all, r.Name)
		}

		for _, r := range folded(test.query, rows...).Rows {
			at = append(at, r.Name)
		}

		if !slices.Equal(all, test.want) || !slices.Equal(at, test.want) {
			t.Errorf("%+v: %q and %q, want %q", test.query, all, at, test.want)
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()

	for d, want := range map[time.Duration]string{
		-time.Second:                "0s",
		900 * time.Millisecond:      "0s",
		59 * time.Second:            "59s",
		185 * time.Second:           "3m05s",
		3*time.Hour + 2*time.Minute: "3h02m",
		51 * time.Hour:              "2d03h",
		200 * 365 * 24 * time.Hour:  "forever",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", d, got, want)
		}
	}

	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}
