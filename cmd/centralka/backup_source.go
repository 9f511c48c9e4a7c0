package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"centralka/ordinance"
	"centralka/store"
)

func (v localVault) backupDays(context.Context) ([]store.DayCopy, string, error) {
	list, err := v.store.BackupDays()
	return list, v.store.Master(), err
}

func (v localVault) backupDay(ctx context.Context, day ordinance.Day, w io.Writer) (store.DayCopy, error) {
	return v.store.BackupDay(ctx, day, w)
}

func (v localVault) backupCentral(_ context.Context, w io.Writer) error {
	return v.store.BackupCentral(w)
}

func (v localVault) backupKeys(context.Context) ([]store.KeyCopy, error) {
	return v.store.BackupKeys()
}

// backupList is the answer to GET /backup/days.
type backupList struct {
	Master string
	Days   []store.DayCopy
}

// backupState is the trailer that tells which state of a day was sent. Where
// it is missing the copy is not whole.
const backupState = "Backup-State"

func (v remoteVault) backupDays(ctx context.Context) ([]store.DayCopy, string, error) {
	var list backupList
	err := v.askJSON(ctx, "/backup/days", &list)
	return list.Days, list.Master, err
}

func (v remoteVault) backupKeys(ctx context.Context) (list []store.KeyCopy, err error) {
	return list, v.askJSON(ctx, "/backup/keys", &list)
}

func (v remoteVault) askJSON(ctx context.Context, path string, into any) error {
	body, err := v.ask(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer body.Close() // only read
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("ask the running centralka: %w", err)
	}
	return nil
}

func (v remoteVault) backupDay(ctx context.Context, day ordinance.Day, w io.Writer) (c store.DayCopy, err error) {
	state, err := v.fetch(ctx, "/backup/day?day="+url.QueryEscape(day.String()), w)
	if err == nil {
		err = json.Unmarshal([]byte(state), &c)
	}
	return c, err
}

func (v remoteVault) backupCentral(ctx context.Context, w io.Writer) error {
	_, err := v.fetch(ctx, "/backup/central", w)
	return err
}

// fetch writes an answer to w and returns its trailer.
func (v remoteVault) fetch(ctx context.Context, path string, w io.Writer) (state string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://centralka"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := v.send(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() // only read
	if _, err := io.Copy(w, resp.Body); err != nil {
		return "", fmt.Errorf("the running centralka did not finish: %w", err)
	}
	if state = resp.Trailer.Get(backupState); state == "" {
		return "", errors.New("the running centralka did not finish")
	}
	return state, nil
}

func (c *control) serveBackupDays(w http.ResponseWriter, r *http.Request) {
	list, err := c.store.BackupDays()
	c.answer(w, backupList{c.store.Master(), list}, err)
}

func (c *control) serveBackupKeys(w http.ResponseWriter, r *http.Request) {
	list, err := c.store.BackupKeys()
	c.answer(w, list, err)
}

func (c *control) serveBackupDay(w http.ResponseWriter, r *http.Request) {
	day, err := ordinance.ParseDay(r.URL.Query().Get("day"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.stream(w, func(w io.Writer) (any, error) { return c.store.BackupDay(r.Context(), day, w) })
}

func (c *control) serveBackupCentral(w http.ResponseWriter, r *http.Request) {
	c.stream(w, func(w io.Writer) (any, error) { return "whole", c.store.BackupCentral(w) })
}

func (c *control) answer(w http.ResponseWriter, what any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(what); err != nil {
		c.log.Warn("control socket: answer cut off", "err", err)
	}
}

// stream sends what write writes, and what it returns in the trailer. An answer
// that fails half-way is broken off, so that nobody takes it for whole.
func (c *control) stream(w http.ResponseWriter, write func(io.Writer) (any, error)) {
	w.Header().Set("Trailer", backupState)
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &begun{w: w}
	state, err := write(out)
	var text []byte
	if err == nil {
		text, err = json.Marshal(state)
	}
	switch {
	case err == nil:
		w.Header().Set(backupState, string(text))
	case !out.begun:
		w.Header().Del("Trailer")
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		c.log.Error("backup broken off", "err", err)
		panic(http.ErrAbortHandler)
	}
}

// begun notes whether anything was written.
type begun struct {
	w     io.Writer
	begun bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.begun = true
	return b.w.Write(p)
}
