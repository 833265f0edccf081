package payment

import "time"

// Schedule says when a cycle runs by itself: at Offset after each multiple of
// Every since the Unix epoch, in UTC. Every 24 h at 2 h is two in the morning;
// weeks begin on Thursdays. The zero Schedule runs only when asked.
type Schedule struct {
	Every  time.Duration `json:",omitempty"`
	Offset time.Duration `json:",omitempty"`
}

// Next is the first run after an instant; false when there is none.
func (s Schedule) Next(after time.Time) (time.Time, bool) {
	if s.Every <= 0 {
		return time.Time{}, false
	}
	every, since := s.Every.Nanoseconds(), after.UnixNano()-s.Offset.Nanoseconds()
	periods := since / every
	if since < 0 && since%every != 0 {
		periods--
	}
	return time.Unix(0, (periods+1)*every+s.Offset.Nanoseconds()).UTC(), true
}
