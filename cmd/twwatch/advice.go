package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/internal/advice"
)

// adviceFlags name an operator's own services and remedies.
type adviceFlags struct{ files []string }

func (a *adviceFlags) define(cmd *kingpin.CmdClause) {
	cmd.Flag("advice.file", "YAML file with services and remedies of your own; can be given several times.").
		PlaceHolder("FILE").StringsVar(&a.files)
}

// library is what twwatch knows, and what the operator adds.
func (a *adviceFlags) library() (*advice.Library, error) {
	var files []advice.File
	for _, path := range a.files {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--advice.file: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(f, advice.MaxFile+1)) // one more byte is an error of its own
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("--advice.file: %w", err)
		}
		files = append(files, advice.File{Name: path, Data: data})
	}
	return advice.Load(files...)
}
