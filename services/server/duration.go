package server

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that configuration files write as "30s".
type Duration time.Duration

// UnmarshalJSON reads a string as time.ParseDuration does; bare numbers, whose
// unit nobody can see, are refused.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("a duration is written as text with a unit, like \"30s\"")
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	*d = Duration(parsed)
	return nil
}

// MarshalJSON writes it the way it is read.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }
