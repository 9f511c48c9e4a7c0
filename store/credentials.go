package store

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
	"golang.org/x/crypto/argon2"
)

// ErrCredentials: the login, password or code is wrong, or the account is
// disabled. Which of them is not told.
var ErrCredentials = errors.New("wrong credentials")

// credentials are what an account proves itself with. They lie apart from the
// account, so that nothing that reads accounts reads them.
type credentials struct {
	Hash       string // PHC form, argon2id
	MustChange bool   `json:",omitempty"` // set by somebody else
	Secret     []byte `json:",omitempty"` // of the second factor
	Enrolled   bool   `json:",omitempty"` // a code of Secret was given once
	Step       uint64 `json:",omitempty"` // the newest time step whose code was used
}

// Parameters of argon2id: RFC 9106 §4 asks for 64 MiB and three passes where
// memory is scarce; one lane, because a switch has other work for its cores. One
// costs about a tenth of a second, and hashing takes turns, so that logins never
// take more than one core and 64 MiB from the calls.
const (
	argonTime   = 3
	argonMemory = 64 << 10 // KiB
	argonLanes  = 1
	argonKey    = 32
	argonSalt   = 16
)

// hasher hashes passwords, one at a time.
type hasher struct {
	turn   sync.Mutex
	once   sync.Once
	nobody string
	memory uint32 // KiB; zero is argonMemory, tests take less
}

func (h *hasher) key(password string, salt []byte, passes, memory uint32, lanes uint8, size uint32) []byte {
	h.turn.Lock()
	defer h.turn.Unlock()
	return argon2.IDKey([]byte(password), salt, passes, memory, lanes, size)
}

// noAccount is the hash that a login without account is held against, so that
// it takes as long as one with.
func (h *hasher) noAccount() string {
	h.once.Do(func() { h.nobody = h.hash(rand.Text()) })
	return h.nobody
}

const phcForm = "$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s"

// hash makes the form in which a password is kept.
func (h *hasher) hash(password string) string {
	salt := make([]byte, argonSalt)
	rand.Read(salt) // never fails (crypto/rand, Go 1.24)
	b64 := base64.RawStdEncoding.EncodeToString
	memory := cmp.Or(h.memory, argonMemory)
	return fmt.Sprintf(phcForm, memory, argonTime, argonLanes, b64(salt), b64(h.key(password, salt, argonTime, memory, argonLanes, argonKey)))
}

// match tells whether the password is the hashed one. The hash says
// with which parameters it was made.
func (h *hasher) match(hash, password string) (bool, error) {
	f := strings.Split(hash, "$")
	var memory, passes uint32
	var lanes uint8
	if len(f) != 6 || f[1] != "argon2id" || f[2] != "v=19" {
		return false, errors.New("not a hash of argon2id")
	}
	if _, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &memory, &passes, &lanes); err != nil || passes == 0 || lanes == 0 {
		return false, errors.New("no parameters of argon2id")
	}
	salt, err := base64.RawStdEncoding.DecodeString(f[4])
	if err != nil {
		return false, err
	}
	want, err := base64.RawStdEncoding.DecodeString(f[5])
	if err != nil || len(want) == 0 {
		return false, errors.New("no key of argon2id")
	}
	return subtle.ConstantTimeCompare(want, h.key(password, salt, passes, memory, lanes, uint32(len(want)))) == 1, nil
}

// MinPassword is the least length of a password, in characters; there is no rule
// on which ones.
const MinPassword = 12

func checkPassword(password, login string) error {
	switch n := utf8.RuneCountInString(password); {
	case n < MinPassword:
		return Fault{"password", "too_short"}
	case len(password) > 1024:
		return Fault{"password", "too_long"}
	case strings.Contains(strings.ToLower(password), login), strings.Count(password, password[:1]) == len(password):
		return Fault{"password", "too_easy"}
	}
	return nil
}

// Standing is what an account still has to do before it may work.
type Standing struct {
	MustChange bool // its password
	Enrolled   bool // has a second factor
}

// Standing tells it.
func (s *Store) Standing(id ID) (Standing, error) {
	c, err := s.credentials(id)
	return Standing{c.MustChange, c.Enrolled}, err
}

func (s *Store) credentials(id ID) (c credentials, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		c, err = readCredentials(tx, id)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("credentials of account %v: %w", id, err)
	}
	return c, nil
}

func readCredentials(tx *bbolt.Tx, id ID) (c credentials, err error) {
	text := tx.Bucket(bucketCredentials).Get(id[:])
	if text == nil {
		return c, ErrNotFound
	}
	return c, getJSON(text, &c)
}

// changeCredentials changes them and appends the event, if it has an action, in
// one transaction.
func (s *Store) changeCredentials(id ID, change func(*bbolt.Tx, *credentials) (AuditEvent, error)) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		c, err := readCredentials(tx, id)
		if err != nil {
			return err
		}
		e, err := change(tx, &c)
		if err != nil {
			return err
		}
		if e.Action != "" {
			e.Object, e.Outcome = ObjectOf(ObjectAccount, id), Allowed
			if err := appendAudit(tx, e); err != nil {
				return err
			}
		}
		return putJSON(tx.Bucket(bucketCredentials), id[:], c)
	})
	if err != nil {
		return fmt.Errorf("change credentials of account %v: %w", id, err)
	}
	return nil
}

// CheckPassword returns the account if login and password are right and it is
// not disabled; a refusal is in the audit log. Whoever calls it slows down those
// who guess.
func (s *Store) CheckPassword(login, password string) (Account, error) {
	a, err := s.AccountByLogin(login)
	if errors.Is(err, ErrNotFound) {
		if _, err := s.passwords.match(s.passwords.noAccount(), password); err != nil {
			return Account{}, err
		}
		return Account{}, errors.Join(ErrCredentials, s.Audit(AuditEvent{Action: ActionLogin, Outcome: Denied}))
	}
	if err != nil {
		return Account{}, err
	}
	c, err := s.credentials(a.ID)
	if err != nil {
		return Account{}, err
	}
	switch right, err := s.passwords.match(c.Hash, password); {
	case err != nil:
		return Account{}, fmt.Errorf("password of account %v: %w", a.ID, err)
	case !right || a.Disabled:
		return Account{}, errors.Join(ErrCredentials, s.denyLogin(a.ID))
	}
	return a, nil
}

func (s *Store) denyLogin(id ID) error {
	return s.Audit(AuditEvent{Action: ActionLogin, Object: ObjectOf(ObjectAccount, id), Outcome: Denied})
}

// ChangePassword sets a password that its holder chose. Other sessions than keep
// end.
func (s *Store) ChangePassword(id ID, password string, keep ID) error {
	a, err := s.Account(id)
	if err == nil {
		err = checkPassword(password, a.Login)
	}
	if err != nil {
		return err
	}
	hash := s.passwords.hash(password)
	return s.changeCredentials(id, func(tx *bbolt.Tx, c *credentials) (AuditEvent, error) {
		c.Hash, c.MustChange = hash, false
		return AuditEvent{Actor: id, Action: ActionPasswordChanged}, endSessions(tx, func(o Session) bool { return o.Account == id && o.ID != keep })
	})
}

// IsPassword tells whether it is the account's.
func (s *Store) IsPassword(id ID, password string) (bool, error) {
	c, err := s.credentials(id)
	if err != nil {
		return false, err
	}
	return s.passwords.match(c.Hash, password)
}

// ResetAccount gives an account a password that has to be changed, takes its
// second factor away and ends its sessions: recovery by an administrator.
func (s *Store) ResetAccount(id ID, password string, by ID) error {
	a, err := s.Account(id)
	if err == nil {
		err = checkPassword(password, a.Login)
	}
	if err != nil {
		return fmt.Errorf("reset account: %w", err)
	}
	fresh := credentials{Hash: s.passwords.hash(password), MustChange: true}
	return s.changeCredentials(id, func(tx *bbolt.Tx, c *credentials) (AuditEvent, error) {
		*c = fresh
		return AuditEvent{Actor: by, Action: ActionAccountReset}, endSessions(tx, func(o Session) bool { return o.Account == id })
	})
}

// DrawPassword makes a one-time password of 26 letters and digits.
func DrawPassword() string { return strings.ToLower(rand.Text()) }

// Second factor: RFC 6238 with its defaults, which every authenticator app
// knows: HMAC-SHA-1, steps of 30 seconds, six digits.
const (
	totpStep   = 30
	totpDigits = 1_000_000
	totpSecret = 20 // bytes, the length of HMAC-SHA-1's output: RFC 4226 §4
	totpWindow = 1  // steps by which a telephone's clock may be off, either way
)

// totp is the code of a step: RFC 4226 §5.3.
func totp(secret []byte, step uint64) uint32 {
	mac := hmac.New(sha1.New, secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, step))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return binary.BigEndian.Uint32(sum[at:at+4]) & 0x7fffffff
}

// usedStep finds the step whose code was given, among those after the last used
// one: RFC 6238 §5.2 wants each code accepted once.
func (c credentials) usedStep(code string, now time.Time) (uint64, bool) {
	code = strings.ReplaceAll(strings.TrimSpace(code), " ", "")
	found, step := false, uint64(0)
	for at := uint64(now.Unix())/totpStep - totpWindow; at <= uint64(now.Unix())/totpStep+totpWindow; at++ {
		right := subtle.ConstantTimeCompare([]byte(code), fmt.Appendf(nil, "%06d", totp(c.Secret, at)%totpDigits)) == 1
		if right && at > c.Step && !found {
			found, step = true, at
		}
	}
	return step, found && len(c.Secret) > 0
}

// OfferSecret returns the secret of the second factor that the account is
// enrolling, base32 as apps take it. It stays the same until a code confirms it,
// and is not shown after that.
func (s *Store) OfferSecret(id ID) (string, error) {
	var secret []byte
	err := s.changeCredentials(id, func(_ *bbolt.Tx, c *credentials) (AuditEvent, error) {
		if c.Enrolled {
			return AuditEvent{}, ErrCredentials
		}
		if len(c.Secret) == 0 {
			c.Secret = make([]byte, totpSecret)
			rand.Read(c.Secret) // never fails (crypto/rand, Go 1.24)
		}
		secret = c.Secret
		return AuditEvent{}, nil
	})
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret), err
}

// CheckCode takes a code of the second factor; the first one completes the
// enrolment. The code of a step is taken once. ErrCredentials: it is wrong, old
// or used.
func (s *Store) CheckCode(id ID, code string) error {
	err := s.changeCredentials(id, func(_ *bbolt.Tx, c *credentials) (e AuditEvent, err error) {
		step, ok := c.usedStep(code, time.Now())
		if !ok {
			return e, ErrCredentials
		}
		if c.Step = step; !c.Enrolled {
			c.Enrolled, e = true, AuditEvent{Actor: id, Action: ActionSecondFactorSet}
		}
		return e, nil
	})
	if errors.Is(err, ErrCredentials) {
		return errors.Join(err, s.denyLogin(id))
	}
	return err
}
