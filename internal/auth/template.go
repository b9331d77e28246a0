package auth

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/cleatkv/cleat/internal/subject"
	"github.com/nats-io/jwt/v2"
)

var templatePattern = regexp.MustCompile(`\{\{\s*([a-z-]+)\(([^)]*)\)\s*\}\}`)

// fillTemplate is a scope's template with its functions replaced by what they say of this user.
func fillTemplate(t jwt.UserPermissionLimits, user *jwt.UserClaims, account *jwt.AccountClaims) (jwt.UserPermissionLimits, error) {
	for _, list := range []struct {
		subjects *jwt.StringList
		deny     bool
	}{
		{&t.Pub.Allow, false}, {&t.Sub.Allow, false}, {&t.Pub.Deny, true}, {&t.Sub.Deny, true},
	} {
		var filled jwt.StringList
		for _, s := range *list.subjects {
			all := fillSubject(s, user, account)
			if len(all) == 0 && list.deny {
				// An allow entry that names nothing allows nothing. A deny entry that names
				// nothing would deny nothing, which nobody can have meant.
				return t, fmt.Errorf("auth: deny entry %q of the scope cannot be filled in", s)
			}
			filled = append(filled, all...)
		}
		if len(*list.subjects) > 0 && len(filled) == 0 {
			return t, fmt.Errorf("auth: the allow list of the scope cannot be filled in")
		}
		*list.subjects = filled
	}
	return t, nil
}

// fillSubject replaces the functions in one subject. A tag with several values gives as many
// subjects; a function without a value gives none.
func fillSubject(s string, user *jwt.UserClaims, account *jwt.AccountClaims) []string {
	done := []string{s}
	for {
		m := templatePattern.FindStringSubmatch(done[0])
		if m == nil {
			break
		}
		values := templateValues(m[1], strings.TrimSpace(m[2]), user, account)
		var next []string
		for _, d := range done {
			for _, v := range values {
				next = append(next, strings.Replace(d, m[0], v, 1))
			}
		}
		if len(next) == 0 {
			return nil
		}
		done = next
	}
	for _, d := range done {
		for _, field := range strings.Fields(d) {
			if !subject.Valid(field) {
				return nil
			}
		}
	}
	return done
}

func templateValues(function, arg string, user *jwt.UserClaims, account *jwt.AccountClaims) []string {
	switch function {
	case "name":
		return nonEmpty(user.Name)
	case "subject":
		return nonEmpty(user.Subject)
	case "account-name":
		return nonEmpty(account.Name)
	case "account-subject":
		return nonEmpty(account.Subject)
	case "tag":
		return tagValues(user.Tags, arg)
	case "account-tag":
		return tagValues(account.Tags, arg)
	}
	return nil
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// tagValues are the values of the tags "name:value".
func tagValues(tags jwt.TagList, name string) (values []string) {
	for _, t := range tags {
		if v, ok := strings.CutPrefix(t, strings.ToLower(name)+":"); ok {
			values = append(values, v)
		}
	}
	return values
}
