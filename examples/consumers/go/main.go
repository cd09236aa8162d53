// Prints what el4ner says of each document, one JSON object a line.
//
//	go run . BOOTSTRAP TOPIC SCHEMAS [COUNT]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kgo"
)

type document struct {
	ID       string   `json:"id"`
	Text     string   `json:"text"`
	Status   string   `json:"status"`
	Entities []entity `json:"entities"`
}

type entity struct {
	Start int    `json:"start"`
	End   int    `json:"end"`
	Text  string `json:"text"`
	Type  string `json:"type"`
}

type outcome struct {
	Document string    `json:"document"`
	Deleted  bool      `json:"deleted,omitempty"`
	Status   string    `json:"status,omitempty"`
	Entities *[]string `json:"entities,omitempty"`
}

func main() {
	bootstrap, topic, schemas := os.Args[1], os.Args[2], os.Args[3]
	left := -1
	if len(os.Args) > 4 {
		left = must(strconv.Atoi(os.Args[4]))
	}
	schema := must(compiled(schemas))
	client := must(kgo.NewClient(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.ConsumerGroup("el4ner-example-go"),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Outcomes are written in transactions: what was never committed is nobody's outcome.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Offsets are committed when messages have been dealt with, so that a crash loses none.
		kgo.DisableAutoCommit(),
	))
	defer client.Close()
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for ctx := context.Background(); left != 0; {
		fetches := client.PollFetches(ctx)
		for _, failed := range fetches.Errors() {
			log.Fatal(failed.Err)
		}
		for records := fetches.RecordIter(); !records.Done() && left != 0; left-- {
			record := records.Next()
			found, err := said(string(record.Key), record.Value, schema)
			if err == nil {
				err = out.Encode(found)
			}
			if err == nil {
				err = client.CommitRecords(ctx, record)
			}
			if err != nil {
				log.Fatal(err)
			}
		}
	}
}

func compiled(folder string) (*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	for _, name := range []string{"common", "tagged-documents"} {
		content, err := os.ReadFile(filepath.Join(folder, name+".v1.json"))
		if err != nil {
			return nil, err
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
		if err != nil {
			return nil, err
		}
		if err := compiler.AddResource(fmt.Sprintf("urn:el4ner:schemas:%s:v1", name), schema); err != nil {
			return nil, err
		}
	}
	return compiler.Compile("urn:el4ner:schemas:tagged-documents:v1")
}

func said(key string, value []byte, schema *jsonschema.Schema) (*outcome, error) {
	if value == nil {
		return &outcome{Document: key, Deleted: true}, nil
	}
	content, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return nil, err
	}
	if err := schema.Validate(content); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	var read document
	if err := json.Unmarshal(value, &read); err != nil {
		return nil, err
	}
	// Offsets count code points. Go's strings count bytes of UTF-8.
	points, entities := []rune(read.Text), []string{}
	for _, found := range read.Entities {
		if string(points[found.Start:found.End]) != found.Text {
			return nil, fmt.Errorf("%s: the text at an entity's offsets is not the entity's", key)
		}
		entities = append(entities, found.Text+"|"+found.Type)
	}
	return &outcome{Document: read.ID, Status: read.Status, Entities: &entities}, nil
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
