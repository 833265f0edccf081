package embedded_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/probity-health/probity/standalone/embedded"
)

// The test binary is also the process that the crash tests kill: with
// crashDir set it serves a broker there until it is killed.
const crashDir = "PROBITY_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		serveUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func serveUntilKilled(dir string) {
	port, _ := strconv.Atoi(os.Getenv("PROBITY_TEST_CRASH_PORT"))
	k, err := embedded.StartKafka(dir, port, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(k.Address())
	select {}
}
