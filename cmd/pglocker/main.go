// Command pglocker shows and cares for the distributed locks of a PostgreSQL database, and runs programs under
// them. docs/cli.md says what each command does.
package main

import (
	"context"
	"os"
	"runtime/debug"
)

func main() {
	// By default the first collection comes while the command starts, and takes a tenth of that time.
	debug.SetGCPercent(200)

	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	a.exit(a.run(context.Background(), os.Args[1:]))
}
