package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// ErrNoSession: there is no such session, or it is over.
var ErrNoSession = errors.New("no such session")

// Stage is how far somebody has come in logging in.
type Stage string

const (
	// StagePassword: the password was right; a code, and perhaps a new password,
	// are still wanted.
	StagePassword Stage = "password"
	StageFull     Stage = "full"
)

// Session is somebody who is logged in. It says nothing of where from.
type Session struct {
	ID      ID // for lists; it opens nothing
	Account ID
	Stage   Stage
	Began   time.Time
	Seen    time.Time // to a minute
	Until   time.Time
}

// How long a session lasts: a working day at most. One that may lead to content
// is over after ten minutes without a request (S5-f), others after an hour; the
// time for the second factor is short.
const (
	sessionLimit  = 12 * time.Hour
	passwordLimit = 10 * time.Minute
	idleContent   = 10 * time.Minute
	idleOther     = time.Hour
	seenEvery     = time.Minute // how often being seen is written down
)

func idleLimit(a Account) time.Duration {
	if a.opensContent() {
		return idleContent
	}
	return idleOther
}

// sessionKey is what is kept of a token: who reads the database cannot log in
// with it. A token has 256 random bits, so a plain hash will do.
func sessionKey(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// BeginSession starts a session and returns its token, which is kept nowhere. A
// full one is a login in the audit log; where content may be opened it ends the
// account's others (S5-f).
func (s *Store) BeginSession(account ID, stage Stage) (token string, begun Session, err error) {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails (crypto/rand, Go 1.24)
	token = base64.RawURLEncoding.EncodeToString(raw)
	now := utc(time.Now())
	begun = Session{ID: NewID(), Account: account, Stage: stage, Began: now, Seen: now, Until: now.Add(sessionLimit)}
	if stage == StagePassword {
		begun.Until = now.Add(passwordLimit)
	}
	err = s.central.update(func(tx *bbolt.Tx) error {
		a, err := readAccount(tx, account)
		if err != nil {
			return err
		}
		if a.Disabled {
			return ErrCredentials
		}
		err = endSessions(tx, func(o Session) bool {
			return !now.Before(o.Until) || stage == StageFull && o.Account == account && (o.Stage == StagePassword || a.opensContent())
		})
		if err == nil && stage == StageFull {
			err = appendAudit(tx, AuditEvent{Actor: account, Action: ActionLogin, Object: ObjectOf(ObjectSession, begun.ID), Outcome: Allowed})
		}
		if err != nil {
			return err
		}
		return putJSON(tx.Bucket(bucketSessions), sessionKey(token), begun)
	})
	if err != nil {
		return "", Session{}, fmt.Errorf("begin session: %w", err)
	}
	return token, begun, nil
}

// Session returns the session of a token and its account as it is now: roles
// that were taken are gone with this call. active tells that its holder did
// something, and not a page by itself. ErrNoSession: it is over.
func (s *Store) Session(token string, active bool) (found Session, a Account, err error) {
	key, now := sessionKey(token), utc(time.Now())
	err = s.central.view(func(tx *bbolt.Tx) error {
		text := tx.Bucket(bucketSessions).Get(key)
		if text == nil {
			return ErrNoSession
		}
		if err := getJSON(text, &found); err != nil {
			return err
		}
		a, err = readAccount(tx, found.Account)
		return err
	})
	if err == nil {
		found.Seen = s.sightings.newest(found)
		if a.Disabled || !now.Before(found.Until) || now.Sub(found.Seen) >= idleLimit(a) {
			err = ErrNoSession
		}
	}
	if err != nil {
		return Session{}, Account{}, fmt.Errorf("session: %w", err)
	}
	if active && s.sightings.note(found.ID, now) {
		err = s.central.update(func(tx *bbolt.Tx) error {
			text := tx.Bucket(bucketSessions).Get(key)
			if text == nil {
				return ErrNoSession // ended meanwhile
			}
			var o Session
			if err := getJSON(text, &o); err != nil {
				return err
			}
			o.Seen = now
			return putJSON(tx.Bucket(bucketSessions), key, o)
		})
		if err != nil {
			return Session{}, Account{}, fmt.Errorf("session: %w", err)
		}
	}
	return found, a, nil
}

// EndSession ends a session; by is who does it. Its holder logs out, anybody
// else revokes it.
func (s *Store) EndSession(id, by ID) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		var ended *Session
		err := endSessions(tx, func(o Session) bool {
			if o.ID == id {
				ended = &o
			}
			return o.ID == id
		})
		if err != nil || ended == nil {
			return errors.Join(err, ErrNotFound)
		}
		e := AuditEvent{Actor: by, Action: ActionSessionEnded, Object: ObjectOf(ObjectSession, id), Outcome: Allowed}
		if by == ended.Account {
			e.Action = ActionLogout
		}
		return appendAudit(tx, e)
	})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// endSessions removes those that end selects.
func endSessions(tx *bbolt.Tx, end func(Session) bool) error {
	b := tx.Bucket(bucketSessions)
	var keys [][]byte
	err := b.ForEach(func(k, v []byte) error {
		var o Session
		if err := getJSON(v, &o); err != nil {
			return err
		}
		if end(o) {
			keys = append(keys, slices.Clone(k))
		}
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// Sessions lists those of an account that are not over, newest first; of all
// accounts if it is zero.
func (s *Store) Sessions(account ID) (list []Session, err error) {
	now := time.Now()
	err = s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketSessions).ForEach(func(_, v []byte) error {
			var o Session
			if err := getJSON(v, &o); err != nil {
				return err
			}
			o.Seen = s.sightings.newest(o)
			a, err := readAccount(tx, o.Account)
			if err != nil {
				return err
			}
			if (account.IsZero() || o.Account == account) && now.Before(o.Until) && now.Sub(o.Seen) < idleLimit(a) {
				list = append(list, o)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	slices.SortFunc(list, func(a, b Session) int { return b.Began.Compare(a.Began) })
	return list, nil
}
