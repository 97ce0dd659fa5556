package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the manual pages into a folder",
		Long: `man writes a manual page for each command into FOLDER, which it makes if need be. Look at one
by ` + "`man -l FOLDER/pglocker-ls.1`" + `, or write them to a folder man1 of the manual path.`,
		Example: `  pglocker man /usr/local/share/man/man1`,
		Args:    arguments(1, 1, "one FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}

			root := cmd.Root()
			root.DisableAutoGenTag = true

			// The date is that of the build, or else today's page would differ from yesterday's.
			date := buildTime()

			return doc.GenManTree(root, &doc.GenManHeader{
				Section: "1", Source: "pglocker " + versions().Version, Manual: "pglocker", Date: &date,
			}, args[0])
		},
	}
}

func newDocs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "docs",
		Short:  "Print docs/cli.md",
		Hidden: true,
		Args:   arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := a.stdout.WriteString(markdown(cmd.Root()))

			return err
		},
	}
}

// buildTime is when the source was committed, if the build knows.
func buildTime() time.Time {
	at, _ := time.Parse(time.RFC3339, cmp.Or(buildSetting("vcs.time"), "2026-11-01T00:00:00Z"))

	return at
}

// markdown is docs/cli.md: what all commands share, and a section for each.
func markdown(root *cobra.Command) string {
	var b strings.Builder

	b.WriteString(docHead)
	b.WriteString("\n## Exit codes\n\n| code | meaning |\n|---|---|\n")

	for _, c := range exitCodes {
		fmt.Fprintf(&b, "| %s | %s |\n", c.code, c.meaning)
	}

	b.WriteString("\n`run` ends with the exit code of its program, if that has run to its end. `elect` runs the program again, and ends\n" +
		"with 128 + n of the signal that ended it.\n" +
		"`doctor` has codes of its own.\n")
	b.WriteString("\n## Flags of all commands\n\n")
	code(&b, root.PersistentFlags().FlagUsages())

	root.InitDefaultCompletionCmd()

	for _, group := range append(root.Groups(), &cobra.Group{Title: "Others:"}) {
		title := "\n## " + strings.TrimSuffix(group.Title, ":") + "\n"

		for _, cmd := range root.Commands() {
			if cmd.GroupID == group.ID && cmd.IsAvailableCommand() && cmd.Name() != "help" {
				b.WriteString(title)
				section(&b, cmd)

				title = ""
			}
		}
	}

	return b.String()
}

// section describes one command.
func section(b *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(b, "\n### %s\n\n", cmd.CommandPath())
	fmt.Fprintf(b, "%s.\n\n", cmd.Short)
	code(b, cmd.UseLine())

	if cmd.Long != "" {
		b.WriteString("\n")
		prose(b, cmd.Long)
	}

	if cmd.Example != "" {
		b.WriteString("\nExamples:\n\n")
		code(b, cmd.Example)
	}

	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		b.WriteString("\nFlags:\n\n")
		code(b, flags.FlagUsages())
	}

	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nIt has a subcommand for each of: ")

		var names []string
		for _, sub := range cmd.Commands() {
			names = append(names, sub.Name())
		}

		b.WriteString(strings.Join(names, ", ") + ".\n")
	}
}

// prose writes the help of a command. Paragraphs that are indented there are code here.
func prose(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("\n")
		}

		if strings.HasPrefix(paragraph, "  ") {
			code(b, paragraph)
		} else {
			b.WriteString(strings.ReplaceAll(paragraph, "<", "&lt;") + "\n")
		}
	}
}

// code writes a block of code.
func code(b *strings.Builder, text string) {
	b.WriteString("```text\n" + strings.TrimRight(text, "\n ") + "\n```\n")
}
