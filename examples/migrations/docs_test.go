package migrations_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocs: the code of docs/migrations.md is that of these tests.
func TestDocs(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("../../docs/migrations.md")
	must(t, err)

	sources := ""

	for _, name := range []string{"goose_test.go", "migrate_test.go"} {
		source, err := os.ReadFile(name)
		must(t, err)

		sources += string(source)
	}

	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Errorf("%d pieces of code", len(blocks))
	}

	for _, block := range blocks {
		if !strings.Contains(sources, string(block[1])) {
			t.Errorf("no test has this code:\n%s", block[1])
		}
	}
}
