//go:build unix

package top_test

import (
	"fmt"
	"testing"
)

func TestLook(t *testing.T) {
	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)

	web, ops := newProcess(t, db, "web-3:4121"), newProcess(t, db, "ops-1:881")
	web.hold("nightly-report")
	ops.hold("import/orders/42")
	ops.wait("nightly-report")
	web.lead("scheduler")
	web.permit("slow-service", 3, 2)
	web.read("config")
	ops.read("config")
	web.write("config")

	x := start(t, url, 80, 24)
	fmt.Println(x.shows("nightly-report", "live", "scheduler"))
	x.keys(enter)
	fmt.Println(x.shows("HISTORY"))
	x.keys("f")
	fmt.Println(x.shows("Reason"))
	x.keys("stuck")
	x.keys(enter)
	fmt.Println(x.shows("y/n"))
	x.keys("n?")
	fmt.Println(x.shows("suspend"))
	x.keys("q")
	x.keys("q")
	fmt.Println(x.ends())
	fmt.Println(x.text())
}
