package repotest

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// atLeast are the first versions without what is known to be wrong with earlier ones
// (ATTACKS OP-08).
var atLeast = map[string]string{
	"go":                            "1.26.6",
	"github.com/go-jose/go-jose/v4": "4.1.4",
	"github.com/redis/go-redis/v9":  "9.22.0", // 9.20.1 to 9.21 could hang
	"golang.org/x/crypto":           "0.52.0",
}

// No dependency is older than what is known to be safe.
func TestPinnedVersions(t *testing.T) {
	for name, text := range files(t) {
		if name != "go.mod" && !strings.HasSuffix(name, "/go.mod") || strings.HasPrefix(name, "bench/peers/") { // what others need
			continue
		}
		for _, problem := range tooOld(text) {
			t.Errorf("%s: %s", name, problem)
		}
	}
	const old = "go 1.26.5\nrequire (\n\tgithub.com/go-jose/go-jose/v4 v4.1.3\n\tgolang.org/x/crypto v0.9.0 // indirect\n\tgithub.com/redis/go-redis/v9 v9.100.0\n)\n"
	if found := tooOld(old); len(found) != 3 {
		t.Errorf("found %q in what has three", found)
	}
}

var aRequirement = regexp.MustCompile(`(?m)^\s*(?:require )?(\S+) v?(\d+(?:\.\d+)*)\S*`)

func tooOld(module string) (found []string) {
	for _, match := range aRequirement.FindAllStringSubmatch(module, -1) {
		if least, pinned := atLeast[match[1]]; pinned && older(match[2], least) {
			found = append(found, match[1]+" "+match[2]+" is older than "+least)
		}
	}
	return found
}

func older(version, than string) bool {
	a, b := strings.Split(version, "."), strings.Split(than, ".")
	for i := range b {
		n := 0
		if i < len(a) {
			n, _ = strconv.Atoi(a[i])
		}
		if m, _ := strconv.Atoi(b[i]); n != m {
			return n < m
		}
	}
	return false
}
