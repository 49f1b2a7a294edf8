package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/qinsconv/qinsconv/convert"
)

func convertCommand(c *cli.Context, ui *ui, rules *ruleList) error {
	args, err := paths(c, "IN", "OUT")
	if err != nil {
		return err
	}
	p := ui.printer(c, "convert")
	opts, err := conversionOptions(c, rules, p.event)
	if err != nil {
		return err
	}
	if convert.IsModel(args[0]) {
		r, err := convert.ConvertDir(c.Context, args[0], args[1], opts)
		p.close()
		if err != nil {
			return err
		}
		p.model(args[0], args[1], r)
		return nil
	}
	m, err := convert.Convert(c.Context, args[0], args[1], opts)
	p.close()
	if err != nil {
		return err
	}
	p.manifest(args[1], m)
	return nil
}

func batchCommand(c *cli.Context, ui *ui, rules *ruleList) error {
	args, err := paths(c, "SRC", "DST")
	if err != nil {
		return err
	}
	p := ui.printer(c, "batch")
	opts, err := conversionOptions(c, rules, p.event)
	if err != nil {
		return err
	}
	r, err := convert.Batch(c.Context, args[0], args[1], opts)
	p.close()
	if err != nil {
		return err
	}
	p.batch(r)
	if r.Failed > 0 {
		return fmt.Errorf("%w: %d of %d models failed", errReported, r.Failed, len(r.Models))
	}
	return nil
}

func planCommand(c *cli.Context, ui *ui, rules *ruleList) error {
	args, err := paths(c, "IN")
	if err != nil {
		return err
	}
	p := ui.printer(c, "plan")
	opts, err := conversionOptions(c, rules, p.event)
	if err != nil {
		return err
	}
	var plans convert.Plans
	if convert.IsModel(args[0]) {
		plans, err = convert.PlanDir(c.Context, args[0], opts)
	} else {
		plans = make(convert.Plans, 1)
		plans[0], err = convert.NewPlan(c.Context, args[0], opts)
	}
	p.close()
	if err != nil {
		return err
	}
	p.plan(args[0], plans)
	return nil
}

func decodeCommand(c *cli.Context, ui *ui) error {
	args, err := paths(c, "IN", "OUT")
	if err != nil {
		return err
	}
	n, err := jobs(c)
	if err != nil {
		return err
	}
	p := ui.printer(c, "decode")
	decode := convert.Decode
	if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
		decode = convert.DecodeDir
	}
	err = decode(c.Context, args[0], args[1], convert.Options{Jobs: n, Force: c.Bool("force"), Events: p.event})
	p.close()
	return err
}

func verifyCommand(c *cli.Context, ui *ui) error {
	args, err := paths(c, "PATH")
	if err != nil {
		return err
	}
	n, err := jobs(c)
	if err != nil {
		return err
	}
	if c.IsSet("against") {
		if err := checkPath(c, "--against", c.String("against")); err != nil {
			return err
		}
	}
	p := ui.printer(c, "verify")
	report, err := convert.Verify(c.Context, args[0], convert.VerifyOptions{Against: c.String("against"), Jobs: n, Events: p.event})
	p.close()
	if err != nil {
		return err
	}
	p.report(report)
	if !report.OK() {
		return verdict{report.Worst()}
	}
	return nil
}

func inspectCommand(c *cli.Context, ui *ui) error {
	args, err := paths(c, "FILE")
	if err != nil {
		return err
	}
	list, err := convert.Inspect(args[0])
	if err != nil {
		return err
	}
	ui.printer(c, "inspect").inspection(list)
	return nil
}
