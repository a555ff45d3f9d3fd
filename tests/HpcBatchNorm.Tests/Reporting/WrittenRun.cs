using System.Globalization;
using System.Text;

namespace HpcBatchNorm.Tests.Reporting;

/// <summary>A run's folder written by a test, so that it need not be trained.</summary>
internal sealed class WrittenRun
{
    private readonly string _metrics;
    private readonly int _totalSteps, _seed;

    public WrittenRun(string folder, string title, int totalSteps, int seed)
    {
        (_totalSteps, _seed, _metrics) = (totalSteps, seed, Path.Combine(folder, "metrics.jsonl"));
        Directory.CreateDirectory(folder);
        Append(
            $$"""{"type":"start","step":0,"epoch":0,"title":"{{title}}","total_steps":{{totalSteps}},"steps_per_epoch":100,"machine":"elsewhere","process":1,"facts":{"network":"bn-inception, 11,3 M parameters","data":"/data/imagenet: official <archives> & more"},"seconds":0}""");
        File.WriteAllText(Path.Combine(folder, "config.yaml"), "model: bn-inception\n");
    }

    public int Step { get; private set; }

    /// <summary>Writes what a run writes at a log step and, after every 100 steps, at an evaluation.</summary>
    public void Log(int steps)
    {
        Step += steps;
        double progress = (double)Step / _totalSteps, noise = Math.Sin(Step * 12.9898 + _seed) * 0.15;
        double loss = 1.2 + 5.7 * Math.Exp(-4 * progress) + 0.1 * _seed;
        string epoch = (Step / 100.0).ToString(CultureInfo.InvariantCulture), seconds = (Step * 0.7).ToString(CultureInfo.InvariantCulture);
        Append(string.Create(CultureInfo.InvariantCulture,
            $$"""{"type":"train","step":{{Step}},"epoch":{{epoch}},"loss":{{loss + noise}},"learning_rate":{{0.045 * Math.Pow(0.05, progress)}},"images_per_second":{{31 + 4 * noise}},"data_wait_share":{{0.02 + noise * noise}},"peak_memory_mb":1233.2,"seconds":{{seconds}}}"""));
        if (Step % 100 == 0)
        {
            double top1 = 0.74 * (1 - Math.Exp(-5 * progress)) - 0.02 * _seed;
            Append(string.Create(CultureInfo.InvariantCulture,
                $$"""{"type":"eval","step":{{Step}},"epoch":{{epoch}},"train_loss":{{loss}},"val_loss":{{loss + 0.1}},"val_top1":{{top1}},"val_top5":{{Math.Min(1, top1 + 0.18)}},"images":50000,"images_per_second":70.5,"best":true,"seconds":{{seconds}}}"""));
            AppendDrift(epoch, progress);
        }
    }

    public void End(string outcome) => Append($$"""{"type":"end","step":{{Step}},"epoch":1,"outcome":"{{outcome}}","seconds":1}""");

    private void AppendDrift(string epoch, double progress)
    {
        var line = new StringBuilder($$"""{"type":"batch_norm","step":{{Step}},"epoch":{{epoch}},"since_step":{{Step - 100}},"layers":[""");
        for (int layer = 0; layer < 69; layer++)
        {
            double shift = 0.8 * Math.Exp(-5 * progress) * (1 + Math.Sin(layer)) + (layer == 40 ? 0.4 : 0.005);
            line.Append(layer > 0 ? "," : "").Append(CultureInfo.InvariantCulture,
                $$"""{"name":"inception_{{3 + layer / 23}}{{(char)('a' + layer % 5)}}/double3x3_reduce{{layer}}/bn","channels":64,"shift":{{(Step == 100 ? "null" : shift.ToString(CultureInfo.InvariantCulture))}},"largest_shift":{{(Step == 100 ? "null" : (3 * shift).ToString(CultureInfo.InvariantCulture))}},"deviation":1.5,"quiet_channels":{{layer % 7 / 6}}}""");
        }

        Append(line.Append("]}").ToString());
    }

    private void Append(string line) => File.AppendAllText(_metrics, line + "\n");
}
