package follower

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// FromStart keeps nothing: every start reads the log from its beginning. For
// processes without a disk; catching up is cheap, since only what is still
// open costs a call.
type FromStart struct{}

// Load returns nil.
func (FromStart) Load(context.Context) (map[uint32]uint64, error) { return nil, nil }

// Save does nothing.
func (FromStart) Save(context.Context, map[uint32]uint64) error { return nil }

// File keeps the cursor in a file, together with what it is worth anything
// for: the Temporal namespace that holds the workflows started before it. In
// another namespace, or a new database, they'd be missing, and so the log is
// read from its beginning.
type File struct {
	Path string
	// Namespace names the namespace itself, not its name; see NamespaceID.
	Namespace func(ctx context.Context) (string, error)
}

type cursorFile struct {
	Namespace string            `json:"namespace"`
	Next      map[uint32]uint64 `json:"next"`
}

// Load returns nil when there is no file, it can't be read as one, or it is of another namespace.
func (c File) Load(ctx context.Context) (map[uint32]uint64, error) {
	raw, err := os.ReadFile(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("follower: cursor: %w", err)
	}
	var stored cursorFile
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&stored) != nil {
		return nil, nil
	}
	id, err := c.Namespace(ctx)
	if err != nil {
		return nil, fmt.Errorf("follower: cursor: %w", err)
	}
	if stored.Namespace != id {
		return nil, nil
	}
	return stored.Next, nil
}

// Save replaces the file whole.
func (c File) Save(ctx context.Context, next map[uint32]uint64) error {
	id, err := c.Namespace(ctx)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(cursorFile{Namespace: id, Next: next})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.Path), filepath.Base(c.Path)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// NamespaceID asks Temporal for its namespace's id, made anew with every
// database, once it is reached.
func NamespaceID(c client.Client, namespace string) func(context.Context) (string, error) {
	var known string
	return func(ctx context.Context) (string, error) {
		if known != "" {
			return known, nil
		}
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		r, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		if err != nil {
			return "", err
		}
		known = r.GetNamespaceInfo().GetId()
		return known, nil
	}
}
