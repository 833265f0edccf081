package worker

import (
	"errors"
	"runtime/debug"
)

// BuildID names this binary for worker deployments: the revision of the
// sources it was built from, marked when they had been changed. Two binaries
// of one id must decide alike, so a build that doesn't know is an error.
func BuildID() (string, error) {
	info, _ := debug.ReadBuildInfo()
	if id := revision(info); id != "" {
		return id, nil
	}
	return "", errors.New("this binary does not know its revision (built outside a checkout, or by go test): set temporal.buildID")
}

// revisionLength of a revision is enough to name it.
const revisionLength = 12

func revision(info *debug.BuildInfo) string {
	if info == nil {
		return ""
	}
	id, changed := "", false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			id = s.Value[:min(len(s.Value), revisionLength)]
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if id != "" && changed {
		id += "-changed"
	}
	return id
}
