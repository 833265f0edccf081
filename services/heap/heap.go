// Package heap lets a process take memory instead of time: it bounds how often
// the collector runs while little lives.
package heap

import (
	"bufio"
	"bytes"
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// What lives in a process of Probity is little beside what passes through it,
// and Go's own rule collects whenever the heap has doubled: a fifth of the CPU
// of a file of claims, an eighth of an append's. Below a floor the heap is
// therefore left to grow, as far as the machine can well spare it; above, Go's
// own rule holds. So memory is flat at the floor until what lives takes two
// thirds of it: what lies free between what lives, hundreds of MB after large
// documents, is held in measure by Go's memory limit, which is lifted before it
// could make the collector run without end.
const (
	// share of the memory that the process may use is the floor, unless its
	// command says otherwise.
	share = 16
	// mostFloor is more than a whole stack in one process gains by.
	mostFloor = 5 << 28
	// minGCPercent is what the heap may at least grow by below the floor: with
	// less the collector would run all the time, with more memory would leave
	// the floor as soon as half of it lives.
	minGCPercent = 50
	// maxGCPercent keeps the first seconds, in which next to nothing lives, in measure.
	maxGCPercent = 1000
	// look is how often what lives is looked at.
	look = 250 * time.Millisecond
)

// Usage is the help of the flag that sets a floor.
const Usage = "MiB up to which Go's memory grows before it is collected; by default a sixteenth of the memory there is, at most 1280; 0 leaves it to Go"

// DefaultFloor is the floor in bytes; 0, which leaves it to Go, where the
// environment says how to collect or the machine's memory isn't known.
func DefaultFloor() uint64 {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	return min(usableMemory()/share, mostFloor)
}

// Tend keeps the collector at a floor of so many bytes until ctx ends; 0 leaves
// it to Go.
func Tend(ctx context.Context, floor uint64) {
	if floor == 0 {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	// An eighth is for what lies free between what lives.
	goal := floor - floor/8
	now, bound := 100, int64(math.MaxInt64)
	tick := time.NewTicker(look)
	defer tick.Stop()
	defer func() {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
	}()
	for {
		metrics.Read(sample)
		live := sample[0].Value.Uint64()
		if want := gcPercent(live, goal); want > now+now/10 || want < now-now/10 {
			debug.SetGCPercent(want)
			now = want
		}
		if want := memoryLimit(live, goal, floor); want != bound {
			debug.SetMemoryLimit(want)
			bound = want
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// memoryLimit is what the Go runtime may hold in bytes, the floor; none once two
// thirds of the heap's goal live, from where on memory grows.
func memoryLimit(live, goal, floor uint64) int64 {
	if live >= goal/3*2 {
		return math.MaxInt64
	}
	return int64(floor) //nolint:gosec // a floor is at most some TiB
}

// gcPercent is how much of what lives may be allocated until the heap is at
// the floor, and Go's own 100 where more lives than that.
func gcPercent(live, floor uint64) int {
	if live == 0 {
		return maxGCPercent
	}
	if live >= floor {
		return 100
	}
	return int(min(max((floor-live)*100/live, minGCPercent), maxGCPercent))
}

// usableMemory is what the machine, or the container, has; 0 where it isn't known.
func usableMemory() uint64 {
	total := uint64(0)
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		total = memTotal(raw)
	}
	if raw, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64); err == nil && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}

// memTotal reads the line "MemTotal:  24105 kB" of /proc/meminfo.
func memTotal(raw []byte) uint64 {
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:")
		if !ok {
			continue
		}
		number, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if kib, err := strconv.ParseUint(number, 10, 54); err == nil && unit == "kB" {
			return kib << 10
		}
	}
	return 0
}
