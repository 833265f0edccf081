package reconcile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sound = `ISA*00~BPR*I*95*C~CLP*A*1*150*70*30~CAS*CO*131*-0~SVC*HC:99213*100*70~CAS*CO*45*10**2*0~CAS*PR*3*20~AMT*B6*90~
SVC*HC:1*50*0~CAS*CO*97*40~CAS*PR*1*10~CLP*B*1*25*25*0~SVC*HC:1*25*25~PLB*1*20261231*WO:1*0~SE*9*1~`

func TestAnAdviceIsReadToTheCent(t *testing.T) {
	got, err := readAdvice([]byte(sound))
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, int64(7000), got[0].lines[0].paid)
	require.Equal(t, int64(9000), got[0].lines[0].allowed)
	require.Equal(t, int64(2000), got[0].lines[0].patient())
	require.Equal(t, map[string]int64{"CO-97": 4000, "PR-1": 1000}, got[0].lines[1].adjustments)
}

// One cent at any level is found.
func TestAnAdviceOutOfBalanceIsRefused(t *testing.T) {
	for level, change := range map[string][2]string{
		"service":         {"CAS*PR*3*20", "CAS*PR*3*20.01"},
		"claim":           {"CLP*A*1*150*70*30", "CLP*A*1*150.01*70*30"},
		"transaction":     {"BPR*I*95*C", "BPR*I*94.99*C"},
		"provider":        {"WO:1*0", "WO:1*0.01"},
		"parts of a cent": {"SVC*HC:1*25*25", "SVC*HC:1*25*25.001"},
	} {
		t.Run(level, func(t *testing.T) {
			_, err := readAdvice([]byte(strings.Replace(sound, change[0], change[1], 1)))
			require.Error(t, err)
		})
	}
	_, err := readAdvice([]byte("ISA*00~CLP*A*1*1*1"))
	require.Error(t, err)
}
