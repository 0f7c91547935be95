package access_test

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	orders    = flag.Int("orders", someOrders, "how many orders of requests are walked of each scenario; 0: all")
	orderSeed = flag.Uint64("order-seed", 1, "which of them")
)

// Orders of the single requests of two callers, with kills before and after any of them, and what follows them. Of two nodes
// that come at once, and of a delete beside one, all are walked each time; of the others as many as the flag says.
func TestEveryOrderOfTwoCallers(t *testing.T) {
	kill := budget{kills: 1}
	scenarios := map[string]scenario{
		"two nodes":                    {who: "0A,0B", whole: true},
		"two nodes, kills":             {who: "0A,0B", budget: kill, anyAfter: true},
		"two volumes' names":           {who: "0A,1B"},
		"two volumes' names, kills":    {who: "0A,1B", budget: kill},
		"writer and reader":            {who: "0A,0Br"},
		"writer and reader, kills":     {who: "0A,0Br", budget: kill},
		"readers":                      {who: "0Ar,0Br"},
		"readers, kills":               {who: "0Ar,0Br", budget: kill},
		"reader by another name":       {who: "0A,1Br"},
		"one node by two names":        {who: "0A,1A"},
		"one node by two names, kills": {who: "0A,1A", budget: kill},
		"two clusters":                 {who: "0A,0B/x"},
		"one control plane":            {who: "0A,0B", oneHost: true, budget: kill, anyAfter: true},
		"attached again":               {who: "0A,0B", repeats: true},
		"tried again":                  {who: "0A,0B", tries: 2},
		"answers lost":                 {who: "0A,0B", budget: budget{losses: 1}},
		"given up":                     {who: "0A,0B", budget: budget{lates: 1}},
		"fenced":                       {who: "0A,0B", force: true},
		"sessions end late":            {who: "0A,0B", force: true, lazy: true, tries: 2},
		"delete":                       {who: "0A,D", whole: true},
		"delete, kills":                {who: "0A,D", budget: kill, tries: 2},
		"delete of a reader's volume":  {who: "0Ar,D", holds: true},
		"two deletes on one host":      {who: "D1,D2", oneHost: true, budget: kill},
		"none: two nodes":              {who: "0A,0B", none: true},
		"none: two nodes, kills":       {who: "0A,0B", none: true, budget: kill, anyAfter: true},
		"none: writer and reader":      {who: "0A,0Br", none: true},
		"none: readers":                {who: "0Ar,0Br", none: true},
		"none: a node dies":            {who: "0A,0B", none: true, budget: budget{crashes: 1}},
		"none: a line breaks":          {who: "0A,0B", none: true, budget: budget{breaks: 1}},
		"none: sessions end late":      {who: "0A,0B", none: true, lazy: true},
		"none: delete":                 {who: "0A,D", none: true},
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := *orders
			if s.whole && limit > 0 {
				limit = allOrders
			}
			walked, states, told := explore(t, s, limit, rand.New(rand.NewPCG(*orderSeed, 0)))
			t.Logf("%d orders, %d states, seed %d", walked, states, *orderSeed)
			if limit > 0 {
				return
			}
			for _, who := range strings.Split(s.who, ",") {
				require.Equal(t, !strings.HasPrefix(who, "D"), told[who], "%s is let in in some of the orders", who)
			}
		})
	}
}

// Orders of the requests of three callers, of which there are too many to walk all.
func TestOrdersOfThreeCallers(t *testing.T) {
	often := budget{kills: 2, losses: 1}
	scenarios := map[string]scenario{
		"writers":             {who: "0A,0B,0C", budget: often, anyAfter: true, tries: 2},
		"writers, fenced":     {who: "0A,0B,0C", budget: often, force: true, lazy: true, tries: 2},
		"readers of a writer": {who: "0A,0Br,0Cr", budget: often, force: true, lazy: true, tries: 2},
		"three names":         {who: "0A,1B,2C", budget: often, anyAfter: true},
		"names and readers":   {who: "0A,1Br,0Cr", budget: often, anyAfter: true, tries: 2},
		"one node of two":     {who: "0A,1A,0B", budget: often, tries: 2},
		"two clusters":        {who: "0A,0B/x,1Cr", budget: often, anyAfter: true},
		"delete":              {who: "0A,0B,D", budget: often, tries: 3},
		"delete, readers":     {who: "0Ar,1Br,D", budget: often, anyAfter: true, tries: 2},
		"two deletes":         {who: "0A,D1,D2", budget: often, oneHost: true, tries: 2},
		"repeated":            {who: "0A,0B,D", budget: often, repeats: true},
		"none":                {who: "0A,0B,0C", none: true, budget: often, anyAfter: true, tries: 2},
		"none, readers":       {who: "0A,0Br,0Cr", none: true, budget: often, tries: 2},
		"none, nodes die":     {who: "0A,0B,0C", none: true, lazy: true, budget: budget{kills: 1, crashes: 2}, tries: 2},
		"none, lines break":   {who: "0A,0B,0C", none: true, budget: budget{kills: 1, breaks: 2, crashes: 1}, tries: 2},
		"none, delete":        {who: "0A,0B,D", none: true, budget: often, tries: 2},
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random, arrays := rand.New(rand.NewPCG(*orderSeed, 1)), &arrays{}
			t.Logf("seed %d", *orderSeed)
			for range max(*orders, 20) / 2 {
				sample(t, arrays, s, random)
			}
		})
	}
}
