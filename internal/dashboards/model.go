package dashboards

// object is a JSON object whose keys come out sorted.
type object map[string]any

// A link leads from a panel, a row of a table or the dashboard somewhere else.
type link struct {
	Title       string `json:"title"`
	URL         string `json:"url"`
	TargetBlank bool   `json:"targetBlank"`
}

func datasource() object { return object{"type": "prometheus", "uid": "${datasource}"} }

func (b board) model() object {
	return object{
		"annotations":          object{"list": b.annotationList()},
		"description":          b.description,
		"editable":             true,
		"fiscalYearStartMonth": 0,
		"graphTooltip":         1, // one crosshair in all panels
		"id":                   nil,
		"links":                b.dashboardLinks(),
		"panels":               b.panels(),
		"refresh":              "30s",
		"schemaVersion":        schemaVersion,
		"tags":                 []string{"twwatch", "tcp"},
		"templating":           object{"list": b.variableList()},
		"time":                 object{"from": b.from, "to": "now"},
		"timepicker":           object{},
		"timezone":             "browser",
		"title":                b.title,
		"uid":                  b.uid,
		"version":              1,
		"weekStart":            "",
	}
}

func (b board) annotationList() []object {
	list := []object{{
		"builtIn": 1, "datasource": object{"type": "grafana", "uid": "-- Grafana --"}, "enable": true, "hide": true,
		"iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
	}}
	for _, a := range b.annotations {
		list = append(list, object{
			"datasource": datasource(), "enable": true, "expr": a.expr, "iconColor": "red", "name": a.name,
			"titleFormat": a.text, "useValueForTime": false,
		})
	}
	return list
}

func (b board) dashboardLinks() []object {
	list := []object{}
	for _, l := range b.links {
		list = append(list, object{
			"asDropdown": false, "icon": "external link", "includeVars": false, "keepTime": true, "tags": []string{},
			"targetBlank": l.TargetBlank, "title": l.Title, "tooltip": "", "type": "link", "url": l.URL,
		})
	}
	return list
}

func (b board) variableList() []object {
	list := []object{{
		"hide": 0, "includeAll": false, "label": "Data source", "multi": false, "name": "datasource", "options": []any{},
		"query": "prometheus", "refresh": 1, "regex": "", "skipUrlSync": false, "type": "datasource",
	}}
	for _, v := range b.variables {
		o := object{
			"datasource": datasource(), "definition": v.query, "hide": 0, "includeAll": v.multi, "label": v.label, "multi": v.multi,
			"name": v.name, "options": []any{}, "query": object{"query": v.query, "refId": "variable-" + v.name}, "refresh": 2,
			"regex": "", "skipUrlSync": false, "sort": 1, "type": "query",
		}
		if v.multi {
			// Not the list of all values: a label that no series has matches too.
			o["allValue"] = ".*"
			o["current"] = object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
		}
		list = append(list, o)
	}
	return list
}

// panels gives every panel its id and place, from left to right.
func (b board) panels() []object {
	var list []object
	id, y := 0, 0
	next := func() int { id++; return id }
	for _, s := range b.sections {
		list = append(list, object{
			"collapsed": false, "gridPos": object{"h": 1, "w": width, "x": 0, "y": y}, "id": next(), "panels": []any{},
			"title": s.title, "type": "row",
		})
		y++
		x, high := 0, 0
		for _, p := range s.panels {
			if p.w == 0 {
				p.w = 8
			}
			if p.h == 0 {
				p.h = 8
			}
			if x+p.w > width {
				x, y, high = 0, y+high, 0
			}
			o := p.model(next(), object{"h": p.h, "w": p.w, "x": x, "y": y}, b.explain)
			if b.step != "" && p.kind == timeseries {
				o["interval"] = b.step
			}
			list = append(list, o)
			x, high = x+p.w, max(high, p.h)
		}
		y += high
	}
	return list
}

func (p panel) model(id int, at object, explain func(string) []link) object {
	links := []link{}
	if p.explain != "" {
		links = append(links, explain(p.explain)...)
	}
	if p.about != "" {
		links = append(links, link{"About " + p.title, project + p.about, true})
	}
	o := object{
		"datasource": datasource(), "description": p.description, "fieldConfig": p.fieldConfig(), "gridPos": at, "id": id,
		"links": links, "options": p.options(), "targets": p.targets(), "title": p.title, "type": string(p.kind),
	}
	if p.kind == table {
		o["transformations"] = p.transformations()
	}
	return o
}

func (p panel) targets() []object {
	var list []object
	for i, q := range p.queries {
		o := object{
			"datasource": datasource(), "editorMode": "code", "expr": q.expr, "legendFormat": q.legend,
			"refId": refID(i), "instant": p.kind != timeseries, "range": p.kind == timeseries,
		}
		if p.kind == table {
			o["format"] = "table"
		}
		list = append(list, o)
	}
	return list
}

// refID names the queries of a panel: A, B, …
func refID(i int) string { return string(rune('A' + i)) }

func (p panel) fieldConfig() object {
	defaults := object{
		"color": object{"mode": "palette-classic"}, "mappings": mappings(p.mappings), "unit": p.unit,
		"thresholds": thresholds(p.lines), "links": append([]link{}, p.rowLink...),
	}
	if p.kind != table {
		defaults["min"] = 0
	}
	if p.max != nil {
		defaults["max"] = *p.max
	}
	overrides := []object{}
	switch p.kind {
	case stat:
		defaults["color"] = object{"mode": "thresholds"}
	case timeseries:
		custom := object{"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": false}
		if p.stack {
			custom["stacking"] = object{"group": "A", "mode": "normal"}
			custom["fillOpacity"] = 40
		}
		if len(p.lines) > 0 {
			custom["thresholdsStyle"] = object{"mode": "dashed"}
		}
		defaults["custom"] = custom
		for i, q := range p.queries {
			if q.line != "" {
				overrides = append(overrides, dashed(refID(i), q.line))
			}
		}
	case table:
		defaults["color"] = object{"mode": "thresholds"}
		defaults["custom"] = object{"align": "auto", "filterable": true}
		for _, c := range p.columns {
			if o := c.override(); o != nil {
				overrides = append(overrides, o)
			}
		}
	}
	return object{"defaults": defaults, "overrides": overrides}
}

// dashed draws a query's series as a limit, without area.
func dashed(ref, color string) object {
	return object{
		"matcher": object{"id": "byFrameRefID", "options": ref},
		"properties": []object{
			{"id": "custom.lineStyle", "value": object{"dash": []int{10, 10}, "fill": "dash"}},
			{"id": "custom.fillOpacity", "value": 0},
			{"id": "custom.stacking", "value": object{"group": "A", "mode": "none"}},
			{"id": "color", "value": object{"fixedColor": color, "mode": "fixed"}},
		},
	}
}

func (c column) override() object {
	var properties []object
	if c.unit != "" {
		properties = append(properties, object{"id": "unit", "value": c.unit})
	}
	if c.verdict {
		properties = append(properties, object{"id": "mappings", "value": mappings(severities())})
	}
	if c.verdict || c.share {
		properties = append(properties, object{"id": "custom.cellOptions", "value": object{"type": "color-text"}})
	}
	if len(c.link) > 0 {
		properties = append(properties, object{"id": "links", "value": c.link})
	}
	if c.title == "" || properties == nil {
		return nil
	}
	return object{"matcher": object{"id": "byName", "options": c.title}, "properties": properties}
}

func mappings(texts []valueText) []object {
	list := []object{}
	if len(texts) == 0 {
		return list
	}
	options := object{}
	for i, t := range texts {
		options[t.value] = object{"color": t.color, "index": i, "text": t.text}
	}
	return append(list, object{"options": options, "type": "value"})
}

func thresholds(lines []step) object {
	steps := []object{{"color": "green", "value": nil}}
	for _, l := range lines {
		steps = append(steps, object{"color": l.color, "value": l.value})
	}
	return object{"mode": "absolute", "steps": steps}
}

func (p panel) options() object {
	switch p.kind {
	case stat:
		return object{
			"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		}
	case table:
		sortBy := []object{}
		for _, c := range p.columns {
			if c.first {
				sortBy = append(sortBy, object{"displayName": c.title, "desc": true})
			}
		}
		return object{"cellHeight": "sm", "showHeader": true, "sortBy": sortBy, "footer": object{"show": false, "reducer": []string{"sum"}, "fields": ""}}
	}
	return object{
		"legend":  object{"calcs": []string{"lastNotNull", "max"}, "displayMode": "table", "placement": "bottom", "showLegend": true},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
}

// transformations make one table of a panel's queries: rows with the same
// labels are one row, and the columns come in order, under their titles.
func (p panel) transformations() []object {
	exclude, index, rename := object{"Time": true}, object{}, object{}
	for i, c := range p.columns {
		if c.title == "" {
			exclude[c.field] = true
			continue
		}
		index[c.field] = i
		rename[c.field] = c.title
	}
	return []object{
		{"id": "merge", "options": object{}},
		{"id": "organize", "options": object{"excludeByName": exclude, "indexByName": index, "renameByName": rename}},
	}
}

// value is the field of a table's i-th query among several.
func value(i int, of int) string {
	if of == 1 {
		return "Value"
	}
	return "Value #" + refID(i)
}
