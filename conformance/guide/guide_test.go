// Package guide follows a page of the documentation to the letter: the commands of its `sh` blocks, in their order; and
// every line of a `text` block must have been printed by the block before it. `...` in such a line stands for anything.
// Commands succeed, unless a refusal of the server is what they print. It runs inside an empty world:
//
//	REPOSITORY=... testworld exec -- guide.test -test.v
//
// Two things are others than on the page. Definitions that it takes from the network are those of the world, which has
// no way out; and `kubectl` is the world's own.
package guide

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const limit = 3 * time.Minute

var (
	block   = regexp.MustCompile("(?ms)^```(sh|text)[ \t]*\n(.*?)^```")
	refusal = regexp.MustCompile(`^(Error from server|The \S+ "\S+" is invalid:)`)
	network = regexp.MustCompile(`https://github\.com/kubernetes-sigs/gateway-api/releases/download/\S+\.yaml`)
)

func TestTheGuideIsFollowedToTheLetter(t *testing.T) {
	repository := os.Getenv("REPOSITORY")
	page, err := os.ReadFile(filepath.Join(repository, "docs/guide-kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	programs, definitions := t.TempDir(), definitions(t)
	shim := "#!/bin/sh\nexec testworld kubectl \"$@\"\n"
	if err := os.WriteFile(filepath.Join(programs, "kubectl"), []byte(shim), 0o755); err != nil {
		t.Fatal(err)
	}
	var output string
	shown, blocks := 0, block.FindAllStringSubmatch(string(page), -1)
	for i, found := range blocks {
		if found[1] == "sh" {
			refused := i+1 < len(blocks) && refusal.MatchString(blocks[i+1][2])
			output = run(t, repository, programs, network.ReplaceAllString(found[2], definitions), refused)
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(found[2]), "\n") {
			shown++
			if strings.TrimSpace(line) != "" && !pattern(line).MatchString(output) {
				t.Errorf("the page shows what was not printed: %s", line)
			}
		}
	}
	if shown < 10 {
		t.Errorf("the page shows only %d lines", shown)
	}
}

// Runs commands as a reader would, and gives what they printed.
func run(t *testing.T, repository, programs, script string, refused bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euc", script)
	command.Dir = repository
	command.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
	command.WaitDelay = time.Second
	started := time.Now()
	output, err := command.CombinedOutput()
	t.Logf("%s\n%s(%.1f s)", script, output, time.Since(started).Seconds())
	if (err != nil) != refused {
		state, _ := exec.Command("testworld", "kubectl", "get", "gateways,httproutes,inferencepools,pods,services,events", "-A").CombinedOutput()
		t.Fatalf("%v\n%s", err, state)
	}
	return string(output)
}

// A line of the page, in whatever columns.
func pattern(line string) *regexp.Regexp {
	var words []string
	for _, word := range strings.Fields(line) {
		words = append(words, strings.ReplaceAll(regexp.QuoteMeta(word), `\.\.\.`, ".*"))
	}
	return regexp.MustCompile(`(?m)^\s*` + strings.Join(words, `\s+`) + `\s*$`)
}

// The Gateway API's definitions in one file, as its releases have them.
func definitions(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("testworld")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(program), "crds/standard/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions beside %s: %v", program, err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "---\n%s\n", text)
	}
	path := filepath.Join(t.TempDir(), "standard-install.yaml")
	if err := os.WriteFile(path, []byte(all.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
