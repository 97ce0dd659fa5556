package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// envAnnotation marks a flag that an environment variable can set. Its value is the variable's name.
const envAnnotation = "pglocker_environment"

// fromEnvironment has PGLOCKER_NAME set the flag name where the command line doesn't, and the usage say so.
func fromEnvironment(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		variable := "PGLOCKER_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		flag := flags.Lookup(name)
		flag.Usage += " [$" + variable + "]"

		if err := flags.SetAnnotation(name, envAnnotation, []string{variable}); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// readEnvironment sets the flags that the command line doesn't. An empty variable is as good as none.
func readEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(flag *pflag.Flag) {
		variable := flag.Annotations[envAnnotation]
		if len(variable) == 0 || flag.Changed || err != nil {
			return
		}

		if value := os.Getenv(variable[0]); value != "" {
			if failed := flags.Set(flag.Name, value); failed != nil {
				err = fmt.Errorf("the environment variable %s: %w", variable[0], failed)
			}
		}
	})

	return err
}
