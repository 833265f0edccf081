package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// errNoPostgres: the machine has no PostgreSQL server to measure.
var errNoPostgres = errors.New("PostgreSQL's initdb was not found; install Debian's package postgresql")

// postgres is a server of its own with its defaults, which sync each commit.
// A unique index on stream and revision does the optimistic locking.
type postgres struct {
	server *exec.Cmd
	pool   *pgxpool.Pool
	serial atomic.Uint64
}

// postgresBin is where Debian keeps the newest server it has, "" for none.
func postgresBin() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

func openPostgres(ctx context.Context, dir string) (_ *postgres, err error) {
	bin := postgresBin()
	if bin == "" {
		return nil, errNoPostgres
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	run := func(name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		return c
	}
	as := func(c *exec.Cmd) *exec.Cmd { return c }
	if os.Getuid() == 0 {
		// The server refuses to run as root.
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return nil, err
		}
		as = func(c *exec.Cmd) *exec.Cmd {
			c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
			return c
		}
	}
	data := filepath.Join(dir, "data")
	if out, err := as(run("initdb", "-D", data, "-U", "bench", "--auth", "trust", "--no-instructions")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	p := &postgres{server: as(run("postgres", "-D", data, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=100"))}
	if err := p.server.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	cfg, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://bench@127.0.0.1:%d/postgres?pool_max_conns=64", port))
	if err != nil {
		return nil, err
	}
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if err = p.pool.Ping(ctx); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	_, err = p.pool.Exec(ctx, `CREATE TABLE events (position bigserial PRIMARY KEY, stream text NOT NULL, revision bigint NOT NULL, payload bytea NOT NULL, UNIQUE (stream, revision))`)
	return p, err
}

func (p *postgres) append(ctx context.Context, payload []byte) error {
	stream := fmt.Sprintf("claim-%016x", p.serial.Add(1)*0x9e3779b97f4a7c15)
	_, err := p.pool.Exec(ctx, `INSERT INTO events (stream, revision, payload) VALUES ($1, 0, $2)`, stream, payload)
	return err
}

func (p *postgres) close() error {
	if p.pool != nil {
		p.pool.Close()
	}
	if err := p.server.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	_ = p.server.Wait() // it says that it was interrupted
	return nil
}
