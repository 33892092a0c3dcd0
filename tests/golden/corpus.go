package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"unicode/utf8"
)

// slowArea holds the key derivations and key pairs, which would drown a benchmark.
const slowArea = "slow"

// values is a secret's content, as text and as base64 of raw bytes.
type values struct {
	Data       map[string]string `json:"data,omitempty"`
	DataBase64 map[string]string `json:"dataBase64,omitempty"`
}

type testCase struct {
	Template string `json:"template"`
	values
	Left  string `json:"left,omitempty"`
	Right string `json:"right,omitempty"`

	decoded map[string]string
}

type result struct {
	Output       *string `json:"output,omitempty"`
	OutputBase64 string  `json:"outputBase64,omitempty"`
	Error        string  `json:"error,omitempty"`
}

// outcome is a result that can be compared.
type outcome struct {
	Output, Error string
}

type area struct {
	name  string
	cases []testCase
}

type parsedCase struct {
	template *template.Template
	data     map[string]string
}

func (v values) decode() (map[string]string, error) {
	all := make(map[string]string, len(v.Data)+len(v.DataBase64))
	for key, text := range v.Data {
		all[key] = text
	}
	for key, text := range v.DataBase64 {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		all[key] = string(raw)
	}
	return all, nil
}

func (c testCase) parse() (parsedCase, error) {
	t, err := template.New("golden").
		Option("missingkey=error").
		Funcs(funcs).
		Delims(c.Left, c.Right).
		Parse(c.Template)
	return parsedCase{t, c.decoded}, err
}

func (p parsedCase) execute() (string, error) {
	var out bytes.Buffer
	err := p.template.Execute(&out, p.data)
	return out.String(), err
}

func (c testCase) render() outcome {
	p, err := c.parse()
	if err != nil {
		return outcome{Error: "parse"}
	}
	out, err := p.execute()
	if err != nil {
		return outcome{Error: "exec"}
	}
	return outcome{Output: out}
}

func (a area) render() []outcome {
	all := make([]outcome, 0, len(a.cases))
	for _, c := range a.cases {
		all = append(all, c.render())
	}
	return all
}

var word = regexp.MustCompile(`\.?[$]?\w+`)

// functions names the functions that occur in the case's actions.
func (c testCase) functions() map[string]bool {
	found := map[string]bool{}
	for _, name := range word.FindAllString(c.Template, -1) {
		if _, ok := funcs[name]; ok {
			found[name] = true
		}
	}
	return found
}

func (o outcome) MarshalJSON() ([]byte, error) {
	r := result{Error: o.Error}
	switch {
	case o.Error != "":
	case utf8.ValidString(o.Output):
		r.Output = &o.Output
	default:
		r.OutputBase64 = base64.StdEncoding.EncodeToString([]byte(o.Output))
	}
	return encode(r)
}

func (o *outcome) UnmarshalJSON(text []byte) error {
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	*o = outcome{Error: r.Error}
	if r.Output != nil {
		o.Output = *r.Output
	} else if r.OutputBase64 != "" {
		raw, err := base64.StdEncoding.DecodeString(r.OutputBase64)
		if err != nil {
			return err
		}
		o.Output = string(raw)
	}
	return nil
}

func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimRight(out.Bytes(), "\n"), err
}

func loadAreas() ([]area, error) {
	var standard values
	if err := loadJSON("data.json", &standard); err != nil {
		return nil, err
	}
	standardData, err := standard.decode()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob("cases/*.json")
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no cases found in this folder")
	}
	areas := make([]area, 0, len(paths))
	for _, path := range paths {
		a := area{name: strings.TrimSuffix(filepath.Base(path), ".json")}
		if err := loadJSON(path, &a.cases); err != nil {
			return nil, err
		}
		for i := range a.cases {
			c := &a.cases[i]
			if c.Data == nil && c.DataBase64 == nil {
				c.decoded = standardData
			} else if c.decoded, err = c.values.decode(); err != nil {
				return nil, fmt.Errorf("%s[%d]: %w", path, i, err)
			}
		}
		areas = append(areas, a)
	}
	return areas, nil
}

func loadJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func loadResults(name string) ([]outcome, error) {
	var all []outcome
	return all, loadJSON(filepath.Join("results", name+".json"), &all)
}

// storeResults writes one result per line.
func storeResults(name string, all []outcome) error {
	var out bytes.Buffer
	out.WriteString("[\n")
	for i, o := range all {
		line, err := o.MarshalJSON()
		if err != nil {
			return err
		}
		out.Write(line)
		if i < len(all)-1 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
	}
	out.WriteString("]\n")
	if err := os.MkdirAll("results", 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join("results", name+".json"), out.Bytes(), 0o644)
}
