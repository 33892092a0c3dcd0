package main

import (
	"bytes"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
)

// sprigCerts has sprig make certificates with known keys, so that all but the
// serial number, the signature and the dates is known.
func sprigCerts(p *pki) error {
	const more = `(list "10.0.0.1" "::1" "::ffff:10.1.2.3") (list "a.example.com" "*.example.com")`
	templates := map[string]string{
		"genCAWithKey":             `{{ $c := genCAWithKey "My CA" 365 .key }}{{ $c.Cert }}|||`,
		"genSelfSignedCertWithKey": `{{ $c := genSelfSignedCertWithKey "sélf" ` + more + ` 30 .key }}{{ $c.Cert }}|||`,
		"genSignedCertWithKey": `{{ $ca := genCAWithKey "My CA" 365 .ca }}{{ $c := genSignedCertWithKey "cn.example.com" ` +
			more + ` 30 $ca .key }}{{ $c.Cert }}|{{ $ca.Cert }}|{{ $ca.Key }}|`,
	}
	for function, source := range templates {
		t, err := template.New("t").Funcs(sprig.TxtFuncMap()).Parse(source)
		if err != nil {
			return err
		}
		for i, kind := range kinds {
			formats := []string{"/pkcs8", "/sec1", "/pkcs1"}
			for _, format := range formats {
				key, ok := all.Keys[kind+format]
				if !ok {
					continue
				}
				var out bytes.Buffer
				ca := all.Keys[kinds[(i+1)%len(kinds)]+"/pkcs8"]
				if err := t.Execute(&out, map[string]string{"key": key, "ca": ca}); err != nil {
					return err
				}
				parts := strings.Split(out.String(), "|")
				all.Made = append(all.Made, made{Function: function, Key: key, Cert: parts[0], CA: parts[1], CAKey: parts[2]})
			}
		}
	}
	return nil
}
