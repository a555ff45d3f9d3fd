using System.Diagnostics;
using System.Globalization;
using HpcBatchNorm.Tests.Data;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>Gives a parser changed files and looks at what it does with them.</summary>
internal static class FuzzRun
{
    /// <summary>What a parser may allocate besides ten times the file.</summary>
    public const long AllowedBytes = 64 << 20;

    private const int MostFailures = 5;

    public static readonly TimeSpan Hang = TimeSpan.FromSeconds(10);

    /// <summary>Reads changed files until <paramref name="goOn"/> says no, which is given how many there were.</summary>
    public static FuzzResult Run(FuzzTarget target, int firstSeed, Func<int, bool> goOn)
    {
        using var folder = new TemporaryFolder();
        string path = folder[target.FileName];
        byte[][] seeds = target.Seeds();
        List<string> failures = [];
        (int inputs, int refused, long mostBeyond) = (0, 0, long.MinValue);
        TimeSpan longest = TimeSpan.Zero;
        for (; goOn(inputs) && failures.Count < MostFailures; inputs++)
        {
            int seed = firstSeed + inputs;
            var mutator = new Mutator(seed);
            byte[] input = mutator.Change(seeds[mutator.Next(seeds.Length)]);
            if (target.Repair is not null && !mutator.OneOf(8))
            {
                input = target.Repair(input);
            }

            File.WriteAllBytes(path, input);
            TimeSpan processor = Environment.CpuUsage.TotalTime;
            long start = Stopwatch.GetTimestamp(), allocated = GC.GetAllocatedBytesForCurrentThread();
            string? failure = null;
            try
            {
                target.Parse(path, input);
            }
            catch (UserErrorException error)
            {
                refused++;
                failure = error.Message.Length == 0 || error.Message.Any(char.IsControl) ? $"a message that is not one line: {error.Message}" : null;
            }
            catch (InvalidDataException)
            {
                // A part's own word for it, which its caller turns into a line.
                refused++;
            }
            catch (Exception error) when (error is not OutOfMemoryException)
            {
                failure = error.ToString();
            }

            // On a busy machine time passes while others compute, and other tests compute beside this one: what both agree on is this one's.
            TimeSpan waited = Stopwatch.GetElapsedTime(start), computed = Environment.CpuUsage.TotalTime - processor, took = waited < computed ? waited : computed;
            long beyond = GC.GetAllocatedBytesForCurrentThread() - allocated - 10L * input.Length;
            (longest, mostBeyond) = (took > longest ? took : longest, Math.Max(beyond, mostBeyond));
            failure ??= took > Hang ? FormattableString.Invariant($"took {took.TotalSeconds:0} s")
                : beyond > AllowedBytes ? FormattableString.Invariant($"allocated {(beyond >> 20) + 10 * (input.Length >> 20)} MB for {input.Length} bytes")
                : null;
            if (failure is not null)
            {
                string kept = RepoPaths.InRepo("artifacts", "fuzz", string.Create(CultureInfo.InvariantCulture, $"{target.Name}-{seed}{Path.GetExtension(target.FileName)}"));
                Directory.CreateDirectory(Path.GetDirectoryName(kept)!);
                File.WriteAllBytes(kept, input);
                failures.Add(FormattableString.Invariant($"{target.Name}, seed {seed} (artifacts/fuzz/{Path.GetFileName(kept)}): {failure}"));
            }
        }

        return new FuzzResult(inputs, refused, longest, mostBeyond, failures);
    }
}
