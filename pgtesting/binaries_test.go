//go:build unix

package pgtesting

import (
	"os"
	"path/filepath"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]version{
		"postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)\n": {"15.6", 150006},
		"postgres (PostgreSQL) 12.22":                          {"12.22", 120022},
		"postgres (PostgreSQL) 18.1\n":                         {"18.1", 180001},
		"postgres (PostgreSQL) 19beta2":                        {"19beta2", 190000},
		"postgres (PostgreSQL) 18rc1":                          {"18rc1", 180000},
		"postgres (PostgreSQL) 20devel":                        {"20devel", 200000},
		"postgres (PostgreSQL) 9.6.24":                         {"9.6", 90006},
	} {
		got, err := parseVersion(output)
		if err != nil || got != want {
			t.Errorf("parseVersion(%q) = %v, %v, want %v", output, got, err, want)
		}
	}
	for _, output := range []string{"", "postgres", "initdb (PostgreSQL) next"} {
		if got, err := parseVersion(output); err == nil {
			t.Errorf("parseVersion(%q) = %v, no error", output, got)
		}
	}
}

func TestTheNewestBinariesWin(t *testing.T) {
	root := openTempDir(t)
	install := func(name, version string, programs ...string) string {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range programs {
			script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
			if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	newest := install("newest", "16.10", "postgres", "initdb")
	linked := install("linked", "")
	for _, program := range []string{"postgres", "initdb"} {
		if err := os.Symlink(filepath.Join(newest, program), filepath.Join(linked, program)); err != nil {
			t.Fatal(err)
		}
	}
	broken := install("broken", "18.1", "initdb")
	if err := os.WriteFile(filepath.Join(broken, "postgres"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	folders := []string{
		"relative",
		filepath.Join(root, "nothing"),
		install("first", "14.5", "postgres", "initdb"),
		install("no-initdb", "17.1", "postgres"),
		broken,
		linked,
		install("last", "16.9", "postgres", "initdb"),
	}
	account, err := serverAccount([]string{"postgres", "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	found, ok := newestBinaries(t.Context(), folders, account)
	if want := (binaries{newest, version{"16.10", 160010}}); !ok || found != want {
		t.Errorf("found %v, %v, want %v", found, ok, want)
	}

	old := install("old", "9.6.24", "postgres", "initdb")
	if found, ok := newestBinaries(t.Context(), []string{old}, account); ok {
		t.Errorf("found %v, which is too old", found)
	}
	_, err = inspectBinaries(t.Context(), old, account)
	wantErrorText(t, err, "older than 12")
	_, err = inspectBinaries(t.Context(), broken, account)
	wantErrorText(t, err, "exit status 1")
	_, err = inspectBinaries(t.Context(), folders[3], account)
	wantErrorText(t, err, "initdb")
}

func TestPathComesFirst(t *testing.T) {
	dir := openTempDir(t)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+"/another")
	if folders := installFolders(); len(folders) < 2 || folders[0] != dir || folders[1] != "/another" {
		t.Errorf("installFolders() = %v", folders)
	}
}
