package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// arguments checks how many arguments a subcommand has. takes says it to people: "one ID".
func arguments(least, most int, takes string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("%s takes %s", cmd.CommandPath(), takes)
		case len(args) > most:
			return fmt.Errorf("%s takes %s, not also %q", cmd.CommandPath(), takes, args[most])
		}

		return nil
	}
}
