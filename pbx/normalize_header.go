package pbx

import (
	"bytes"
	"strings"
)

// headerClass says how the value of a header field is brought into form.
type headerClass uint8

const (
	headerPlain       headerClass = iota // left alone
	headerVia                            // list of sent-protocol sent-by;params
	headerAddress                        // name-addr or addr-spec;params
	headerAddressList                    // several of these
	headerCSeq
	headerLength
)

// headerClassOf classifies a field name; long is the full name if the name is a
// compact one that sipgo does not know (RFC 3261 §7.3.3 and the registry).
func headerClassOf(name []byte) (class headerClass, long string) {
	is := func(s string) bool { return bytes.EqualFold(name, []byte(s)) }
	switch len(name) {
	case 1:
		switch name[0] | 0x20 {
		case 'v':
			return headerVia, ""
		case 'f', 't':
			return headerAddress, ""
		case 'm':
			return headerAddressList, ""
		case 'l':
			return headerLength, ""
		case 'r':
			return headerAddress, "Refer-To"
		case 'b':
			return headerAddress, "Referred-By"
		case 'k':
			return headerPlain, "Supported"
		case 'o':
			return headerPlain, "Event"
		case 'u':
			return headerPlain, "Allow-Events"
		case 's':
			return headerPlain, "Subject"
		case 'e':
			return headerPlain, "Content-Encoding"
		case 'x':
			return headerPlain, "Session-Expires"
		case 'a':
			return headerPlain, "Accept-Contact"
		case 'j':
			return headerPlain, "Reject-Contact"
		case 'd':
			return headerPlain, "Request-Disposition"
		case 'y':
			return headerPlain, "Identity"
		}
	case 2:
		if is("To") {
			return headerAddress, ""
		}
	case 3:
		if is("Via") {
			return headerVia, ""
		}
	case 4:
		if is("From") {
			return headerAddress, ""
		}
		if is("CSeq") {
			return headerCSeq, ""
		}
	case 5:
		if is("Route") {
			return headerAddressList, ""
		}
	case 7:
		if is("Contact") {
			return headerAddressList, ""
		}
	case 8:
		if is("Refer-To") {
			return headerAddress, ""
		}
	case 11:
		if is("Referred-By") {
			return headerAddress, ""
		}
	case 12:
		if is("Record-Route") {
			return headerAddressList, ""
		}
	case 14:
		if is("Content-Length") {
			return headerLength, ""
		}
	}
	return headerPlain, ""
}

// headerReady tells whether sipgo reads the (trimmed) value right as it is. It
// holds for everything that appendHeader writes, save broken values.
func headerReady(class headerClass, v []byte) bool {
	switch class {
	case headerCSeq:
		sp := bytes.IndexByte(v, ' ')
		return sp > 0 && bytes.IndexByte(v[sp+1:], ' ') < 0 && bytes.IndexByte(v, '\t') < 0
	case headerVia:
		head, params := cutParams(v)
		sp := bytes.IndexByte(head, ' ')
		if sp <= 0 || bytes.IndexByte(v, ',') >= 0 || bytes.IndexByte(head, '\t') >= 0 {
			return false
		}
		if before, after := head[sp-1], head[sp+1:]; before == '/' || len(after) == 0 ||
			after[0] == '/' || after[0] == ':' || bytes.IndexByte(after, ' ') >= 0 {
			return false
		}
		return paramsReady(params)
	case headerAddress, headerAddressList:
		list := class == headerAddressList
		open := indexUnquoted(v, '<')
		if open < 0 {
			spec, params := cutParams(v)
			if list && bytes.IndexByte(v, ',') >= 0 {
				return false
			}
			return len(trimBlank(spec)) == len(spec) && paramsReady(params)
		}
		length := bytes.IndexByte(v[open:], '>')
		if length < 0 {
			return true
		}
		uri, rest := v[open+1:open+length], v[open+length+1:]
		if list && (indexUnquoted(v[:open], ',') >= 0 || indexUnquoted(rest, ',') >= 0) {
			return false
		}
		return len(trimBlank(uri)) == len(uri) && paramsReady(rest)
	}
	return true
}

// paramsReady checks ";name=value;name" for white space, upper case names, empty
// parameters and quoted semicolons.
func paramsReady(p []byte) bool {
	name, quoted := false, false
	for i, c := range p {
		switch {
		case quoted:
			if c == ';' || c == '\\' {
				return false
			}
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == ' ' || c == '\t':
			return false
		case c == ';':
			if i+1 == len(p) || p[i+1] == ';' || p[i+1] == '=' {
				return false
			}
			name = true
		case c == '=':
			name = false
		case name && c >= 'A' && c <= 'Z':
			return false
		}
	}
	return !quoted
}

// appendHeader writes one field, a list as several fields.
func appendHeader(dst, name, value []byte) []byte {
	class, long := headerClassOf(name)
	if long != "" {
		name = []byte(long)
	}
	line := func(write func([]byte, []byte) []byte, v []byte) {
		dst = append(append(dst, name...), ": "...)
		dst = append(write(dst, trimBlank(v)), "\r\n"...)
	}
	switch class {
	case headerVia, headerAddressList:
		write := appendAddress
		if class == headerVia {
			write = appendVia
		}
		for {
			comma := indexListComma(value)
			if comma < 0 {
				line(write, value)
				return dst
			}
			line(write, value[:comma])
			value = value[comma+1:]
		}
	case headerAddress:
		line(appendAddress, value)
	case headerCSeq:
		line(func(dst, v []byte) []byte { return appendSqueezed(dst, v, "") }, value)
	default:
		line(func(dst, v []byte) []byte { return append(dst, v...) }, value)
	}
	return dst
}

func appendVia(dst, v []byte) []byte {
	head, params := cutParams(v)
	return appendParams(appendSqueezed(dst, head, "/:"), params)
}

func appendAddress(dst, v []byte) []byte {
	open := indexUnquoted(v, '<')
	if open < 0 {
		spec, params := cutParams(v)
		return appendParams(append(dst, trimBlank(spec)...), params)
	}
	length := bytes.IndexByte(v[open:], '>')
	if length < 0 {
		return append(dst, v...) // broken, for validate to refuse
	}
	if display := trimBlank(v[:open]); len(display) > 0 {
		dst = append(append(dst, display...), ' ')
	}
	dst = append(append(append(dst, '<'), trimBlank(v[open+1:open+length])...), '>')
	stray, params := cutParams(v[open+length+1:])
	return appendParams(append(dst, trimBlank(stray)...), params)
}

// appendSqueezed copies v with runs of white space made one space, and none next
// to the separators.
func appendSqueezed(dst, v []byte, separators string) []byte {
	blank := false
	from := len(dst)
	for _, c := range trimBlank(v) {
		if c == ' ' || c == '\t' {
			blank = true
			continue
		}
		if blank && len(dst) > from && strings.IndexByte(separators, c) < 0 && strings.IndexByte(separators, dst[len(dst)-1]) < 0 {
			dst = append(dst, ' ')
		}
		blank = false
		dst = append(dst, c)
	}
	return dst
}

// appendParams copies ";name = value ; name" without white space, names in lower
// case. Parameters without a name, and those that sipgo would tear apart (a
// semicolon in quotes, quotes that do not end), are left out: none of them means
// anything to us, and one of them could pose as a tag.
func appendParams(dst, p []byte) []byte {
	for len(p) > 0 {
		end := indexUnquoted(p, ';')
		if end < 0 {
			end = len(p)
		}
		one := p[:end]
		p = p[min(end+1, len(p)):]
		name, value, has := bytes.Cut(one, []byte{'='})
		name, value = trimBlank(name), trimBlank(value)
		if len(name) == 0 || bytes.IndexByte(name, '"') >= 0 {
			continue
		}
		if bytes.IndexByte(value, '"') >= 0 && (bytes.IndexAny(value, `;\`) >= 0 || bytes.Count(value, []byte{'"'})%2 != 0) {
			continue
		}
		dst = append(dst, ';')
		for _, c := range name {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			dst = append(dst, c)
		}
		if has {
			dst = append(append(dst, '='), value...)
		}
	}
	return dst
}

// cutParams cuts v before its first semicolon; params begins with it.
func cutParams(v []byte) (head, params []byte) {
	if i := indexUnquoted(v, ';'); i >= 0 {
		return v[:i], v[i:]
	}
	return v, nil
}

// indexUnquoted finds c outside quoted strings.
func indexUnquoted(v []byte, c byte) int {
	if bytes.IndexByte(v, '"') < 0 {
		return bytes.IndexByte(v, c)
	}
	quoted := false
	for i := 0; i < len(v); i++ {
		switch {
		case quoted && v[i] == '\\':
			i++
		case v[i] == '"':
			quoted = !quoted
		case !quoted && v[i] == c:
			return i
		}
	}
	return -1
}

// indexListComma finds the comma that ends the first element of a list: outside
// quotes and outside <>.
func indexListComma(v []byte) int {
	quoted, angle := false, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"' && !angle:
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ',' && !angle:
			return i
		}
	}
	return -1
}
