// Command pglocker shows and cares for the distributed locks of a PostgreSQL database, and runs programs under
// them. docs/cli.md says what each command does.
package main

import (
	"context"
	"os"
)

func main() {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	a.exit(a.run(context.Background(), os.Args[1:]))
}
