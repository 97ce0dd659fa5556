package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what `version -o json` prints.
type versionInfo struct {
	Version string `json:"version"`
	Library string `json:"library"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of the command, of the library and of Go",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versions()
			if a.json() {
				return a.printJSON(v)
			}

			_, err := fmt.Fprintf(a.stdout, "pglocker %s (library %s, %s, %s)\n", v.Version, v.Library, v.Go, v.System)

			return err
		},
	}
}

// versions reads what the build wrote into the program.
func versions() versionInfo {
	v := versionInfo{Version: "unknown", Library: "unknown", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}

	build, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}

	v.Version = build.Main.Version

	for _, module := range build.Deps {
		if module.Path == "github.com/ismurov/pglocker" {
			v.Library = module.Version
		}
	}

	return v
}

// buildSetting is what the build wrote under that key, or "".
func buildSetting(key string) string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}

	for _, s := range build.Settings {
		if s.Key == key {
			return s.Value
		}
	}

	return ""
}
