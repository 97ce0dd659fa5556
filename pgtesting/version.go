package pgtesting

import (
	"fmt"
	"regexp"
	"strconv"
)

type version struct {
	text string // as printed: "15.6", "19beta1"
	num  int    // as server_version_num has it: 150006
}

const oldestVersion = 120000

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)(?:\.(\d+)|(?:devel|alpha|beta|rc)\d*)?)`)

// parseVersion reads the output of postgres --version, as in
// "postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)".
func parseVersion(output string) (version, error) {
	match := versionPattern.FindStringSubmatch(output)
	if match == nil {
		return version{}, fmt.Errorf("pgtesting: no version of PostgreSQL: %.200q", output)
	}
	major, err := strconv.Atoi(match[2])
	if err != nil {
		return version{}, fmt.Errorf("pgtesting: no version of PostgreSQL: %.200q", output)
	}
	minor, _ := strconv.Atoi(match[3]) // "" before the first release
	return version{text: match[1], num: major*10000 + minor}, nil
}
