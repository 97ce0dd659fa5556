package pglockerotel_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const alerts = "prometheus/alerts.yml"

// TestRules: promtool accepts the alerts, and they are raised when they should be.
func TestRules(t *testing.T) {
	t.Parallel()

	promtool := findProgram(t, "promtool")

	for _, args := range [][]string{{"check", "rules", alerts}, {"test", "rules", "prometheus/alerts_test.yml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDashboard: when a Prometheus has scraped a program, each query of the dashboard shows something, and a lost lock
// raises its alert. Another program, whose election has the same name, hides nothing.
func TestDashboard(t *testing.T) {
	t.Parallel()

	p, another := startProgram(t), startProgram(t)
	server := startPrometheus(t, p.url, another.url)
	query := func(what, expr string) {
		await(t, what+": "+expr, func() bool { return server.results(t, expr) > 0 })
	}

	if server.results(t, shown("pglocker_none or vector(0)")) > 0 || server.results(t, "vector(0) / 0") > 0 {
		t.Error("a query that shows nothing has a result")
	}

	defer another.lead("reports")()

	p.handOver("invoice/1")
	query("losses begin at 0", `pglocker_lost_total{class="invoice"} == 0`)
	p.lose("invoice/1")
	query("a loss is told", `ALERTS{alertname="PglockerLockLost",alertstate="firing",class="invoice",kind="lock",reason="gone",job="program0"}`)
	query("a loss is told", `ALERTS{alertname="PglockerLockLost",alertstate="firing",class="invoice",kind="lock",reason="unconfirmed"}`)

	resign := p.lead("reports")
	query("both lead", `count(sum by (job, class) (pglocker_held{kind="election"}) == 1) == 2`)
	resign()
	query("a vacancy is seen", `ALERTS{alertname="PglockerNoLeader",alertstate="pending",class="reports",job="program0"}`)

	p.fail("invoice/2")
	query("the last of its series is seen", `pglocker_release_duration_seconds_count{outcome="error"}`)

	// What comes after the first scrape of a series is an increase.
	p.handOver("invoice/3")
	p.fail("invoice/4")
	p.lead("reports")()

	for title, exprs := range panels(t) {
		for _, expr := range exprs {
			query("panel "+title, shown(expr))

			switch title {
			case "Errors":
				query("errors of an operation", shown(expr)+" > 0")
			case "Elections without a leader":
				query("a vacancy that another program has a leader for", shown(expr)+" == 1")
			case "Leaders":
				query("leaders of both programs", "count("+expr+") == 2")
			}
		}
	}
}

// shown is a query without the zero that its panel shows in place of nothing.
func shown(expr string) string { return strings.TrimSuffix(expr, " or vector(0)") }

// panels are the queries of the dashboard, by the titles of its panels.
func panels(t *testing.T) map[string][]string {
	t.Helper()

	text, err := os.ReadFile("grafana/pglocker.json")
	must(t, err)

	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}

	must(t, json.Unmarshal(text, &dashboard))

	found := make(map[string][]string)

	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$__range", "5m", "$job", ".*").Replace(target.Expr)
			found[panel.Title] = append(found[panel.Title], expr)
		}
	}

	if len(found) < 10 {
		t.Errorf("the dashboard has %d panels", len(found))
	}

	return found
}

// promServer is a Prometheus that scrapes programs twice a second. Their jobs are program0, program1 and so on.
type promServer struct{ url string }

func startPrometheus(t *testing.T, targets ...string) promServer {
	t.Helper()

	var (
		binary = findProgram(t, "prometheus")
		folder = t.TempDir()
		config = filepath.Join(folder, "prometheus.yml")
	)

	rules, err := filepath.Abs(alerts)
	must(t, err)

	text := fmt.Appendf(nil, `
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [%q]
scrape_configs:
`, rules)

	for i, target := range targets {
		scraped, err := url.Parse(target)
		must(t, err)

		text = fmt.Appendf(text, "- {job_name: program%d, metrics_path: /, static_configs: [{targets: [%q]}]}\n", i, scraped.Host)
	}

	must(t, os.WriteFile(config, text, 0o600))

	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)

	address := free.Addr().String()
	must(t, free.Close())

	log, err := os.Create(filepath.Join(folder, "log"))
	must(t, err)

	cmd := exec.CommandContext(t.Context(), binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(folder, "data"),
		"--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		_ = log.Close()

		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("prometheus said:\n%s", said)
		}
	})

	s := promServer{"http://" + address}
	await(t, "Prometheus has scraped", func() bool { return s.results(t, "up == 1") == len(targets) })

	return s
}

// results is how many series a query has that are numbers.
func (s promServer) results(t *testing.T, expr string) int {
	t.Helper()

	got, err := http.Get(s.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0 // it is starting
	}
	defer got.Body.Close()

	var answer struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any } // when, and what as a text
		}
	}

	if err := json.NewDecoder(got.Body).Decode(&answer); err != nil {
		return 0 // it is starting
	}

	if answer.Error != "" {
		t.Fatalf("%s: %s", expr, answer.Error)
	}

	numbers := 0

	for _, series := range answer.Data.Result {
		if series.Value[1] != "NaN" {
			numbers++
		}
	}

	return numbers
}

// findProgram finds a program of Debian's package prometheus.
func findProgram(t *testing.T, name string) string {
	t.Helper()

	path, err := exec.LookPath(name)

	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s isn't installed (Debian's package prometheus)", name)
	default:
		t.Skipf("%s isn't installed (Debian's package prometheus)", name)
	}

	return path
}

// TestDocs: the page names each metric, and its code is the example's.
func TestDocs(t *testing.T) {
	t.Parallel()

	page, err := os.ReadFile("../../docs/observability.md")
	must(t, err)

	example, err := os.ReadFile("example_test.go")
	must(t, err)

	_, code, found := strings.Cut(string(page), "```go\n")
	code, _, closed := strings.Cut(code, "```")

	if !found || !closed {
		t.Fatal("the page has no code")
	}

	for line := range strings.Lines(code) {
		if !strings.Contains(string(example), strings.TrimSpace(line)) {
			t.Errorf("not in the example: %s", line)
		}
	}

	for _, name := range []string{
		"acquire.duration", "wait.duration", "hold.duration", "release.duration", "renew.duration",
		"renew.margin", "held", "waiting", "lost", "batch.size", "listener",
	} {
		if !strings.Contains(string(page), "| `pglocker."+name+"` |") {
			t.Errorf("the page has no line of pglocker.%s", name)
		}
	}
}
