// Plants the faults of faults.txt, one at a time, and says which of them no test notices.
//
//   dotnet run tests/mutation/mutate.cs                         all faults
//   dotnet run tests/mutation/mutate.cs -- --only "A|B"         those whose name or file contains one of the texts
//   dotnet run tests/mutation/mutate.cs -- --with "PROGRAM ..." runs the tests through a program, e.g. "nice -n 10"
//   dotnet run tests/mutation/mutate.cs -- --report FILE        writes the table there too (Markdown)
//   dotnet run tests/mutation/mutate.cs -- --part 2/5           the second fifth of them: for several machines, or for one in pieces
//   dotnet run tests/mutation/mutate.cs -- --built              on what an earlier call has built, whose classes passed
//   dotnet run tests/mutation/mutate.cs -- --list               checks that every fault has its place, builds nothing
//
// All faults are built at once into a scratch copy of the sources, artifacts/mutation/tree: each stands in its place as an alternative, (fault ? with : without), and an
// environment variable says which of them is on. So there is one build, and a fault costs the time of its test classes. Exit code 0: every fault is noticed; 1: one is not,
// or a fault has no place any more; 2: the build or the tests without a fault fail.
using System.Diagnostics;
using System.Globalization;
using System.Text;

const string Switch = "HBN_FAULT";
string root = FindRoot(), list = Path.Combine(root, "tests", "mutation", "faults.txt"), tree = Path.Combine(root, "artifacts", "mutation", "tree");
string[] only = (Option("--only") ?? "").Split('|');
string with = Option("--with") ?? "";
List<Fault> all = Read(list), chosen = [.. all.Where(f => only.Any(text => f.Name.Contains(text, StringComparison.OrdinalIgnoreCase) || f.File.Contains(text, StringComparison.OrdinalIgnoreCase)))];
if (Option("--part")?.Split('/') is [var part, var parts])
{
    (int index, int of) = (int.Parse(part, CultureInfo.InvariantCulture) - 1, int.Parse(parts, CultureInfo.InvariantCulture));
    chosen = [.. chosen.Skip(chosen.Count * index / of).Take(chosen.Count * (index + 1) / of - chosen.Count * index / of)];
}

string[] misplaced = [.. all.Select(Misplaced).OfType<string>()];
if (misplaced.Length > 0)
{
    Array.ForEach(misplaced, Console.Error.WriteLine);
    return 1;
}

Console.WriteLine($"{all.Count} faults in {all.Select(f => f.File).Distinct().Count()} files, {chosen.Count} chosen");
if (args.Contains("--list"))
{
    return 0;
}

bool built = args.Contains("--built");
if (!built)
{
    Copy();
    Plant();
}

string tests = Path.Combine(tree, "artifacts", "bin", "HpcBatchNorm.Tests", "release", "HpcBatchNorm.Tests");
Dictionary<string, string> compiled = new() { ["CXXFLAGS"] = $"-include {Path.Combine(tree, "native", "planted_fault.h")}" };
string log = "";
if (!built && (Run("dotnet", ["build", Path.Combine(tree, "tests", "HpcBatchNorm.Tests"), "-c", "Release", "-v", "quiet", "-clp:ErrorsOnly", "-p:RunAnalyzers=false", "-p:TreatWarningsAsErrors=false", "-p:EnforceCodeStyleInBuild=false"], compiled, out log) != 0
    || (chosen.Exists(f => f.File.EndsWith(".cu", StringComparison.Ordinal)) && Run("cmake", ["--build", Path.Combine(tree, "artifacts", "native-build")], compiled, out log) != 0)))
{
    Console.Error.WriteLine($"The scratch copy with all faults does not build:\n{log}");
    return 2;
}

// Without a fault every class must pass, or nothing could be told.
Stopwatch clock = Stopwatch.StartNew();
string[] classes = built ? [] : [.. chosen.SelectMany(f => f.Classes).Distinct()];
foreach (string name in classes)
{
    if (Test([name], 0, 3600, out _, out string before) is not Outcome.Survived)
    {
        Console.Error.WriteLine($"Without a fault, {name} has a test that fails, or none that runs:\n{before}");
        return 2;
    }
}

Console.WriteLine(FormattableString.Invariant($"{classes.Length} classes pass without a fault, {clock.Elapsed.TotalSeconds:0} s"));
var table = new StringBuilder("| fault | file | noticed by |\n|---|---|---|\n");
int survivors = 0;
foreach (Fault fault in chosen)
{
    clock.Restart();
    Outcome outcome = Test(fault.Classes, fault.Number, 600, out string by, out _);
    survivors += outcome == Outcome.Survived ? 1 : 0;
    string noticed = outcome switch { Outcome.Survived => "**nothing**", Outcome.TimedOut => "did not end", _ => by };
    table.Append(CultureInfo.InvariantCulture, $"| {fault.Name} | {Path.GetFileName(fault.File)} | {noticed} |\n");
    Console.WriteLine(FormattableString.Invariant($"{(outcome == Outcome.Survived ? "SURVIVED" : "noticed ")} {fault.Number,3} {clock.Elapsed.TotalSeconds,4:0} s  {fault.Name}: {noticed}"));
}

table.Append(CultureInfo.InvariantCulture, $"\n{chosen.Count} planted, {chosen.Count - survivors} noticed, {survivors} survive.\n");
Console.WriteLine(FormattableString.Invariant($"{chosen.Count} planted, {chosen.Count - survivors} noticed, {survivors} survive"));
if (Option("--report") is { } report)
{
    File.WriteAllText(report, table.ToString());
}

return survivors == 0 ? 0 : 1;

string? Option(string name) => Array.IndexOf(args, name) is var i and >= 0 && i + 1 < args.Length ? args[i + 1] : null;

static string FindRoot()
{
    DirectoryInfo? folder = new(Directory.GetCurrentDirectory());
    while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "HpcBatchNorm.sln")))
    {
        folder = folder.Parent;
    }

    return folder?.FullName ?? throw new DirectoryNotFoundException("Run this within the repository.");
}

static List<Fault> Read(string path)
{
    List<Fault> faults = [];
    string[] lines = [.. File.ReadAllLines(path).Where(l => l.Length > 0 && l[0] != '#')];
    for (int i = 0; i < lines.Length; i += 5)
    {
        if (i + 4 >= lines.Length || !lines[i].StartsWith("= ", StringComparison.Ordinal) || !lines[i + 3].StartsWith("- ", StringComparison.Ordinal) || !lines[i + 4].StartsWith('+'))
        {
            throw new FormatException($"{path}: '{lines[i]}' does not begin a fault of five lines (=, file, classes, -, +).");
        }

        faults.Add(new Fault(faults.Count + 1, lines[i][2..], lines[i + 1], lines[i + 2].Split(' ', StringSplitOptions.RemoveEmptyEntries), lines[i + 3][2..], lines[i + 4].Length > 2 ? lines[i + 4][2..] : ""));
    }

    return faults;
}

// A fault whose text is not there once has lost its place: the code has changed, and the list must follow.
string? Misplaced(Fault fault)
{
    string path = Path.Combine(root, fault.File), text = File.Exists(path) ? File.ReadAllText(path) : "";
    int times = text.Length > 0 ? text.Split(fault.Without).Length - 1 : -1;
    // What ends with a semicolon is planted as a statement, so a statement must begin there.
    if (times == 1 && fault.Without.EndsWith(';') && text[..text.IndexOf(fault.Without, StringComparison.Ordinal)].TrimEnd() is var before && !";{})".Contains(before[^1]))
    {
        return $"'{fault.Name}': '{fault.Without}' is the end of a statement of {fault.File}; give all of it, or an expression.";
    }

    return times == 1 ? null : $"'{fault.Name}': {(times < 0 ? $"there is no file {fault.File}" : $"{fault.File} has the text '{fault.Without}' {times} times, expected once")}.";
}

void Copy()
{
    Run("git", ["-C", root, "ls-files", "-co", "--exclude-standard"], [], out string files);
    HashSet<string> wanted = [.. files.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(f => File.Exists(Path.Combine(root, f)))];
    HashSet<string> planted = [.. all.Select(f => f.File), "Directory.Build.targets"];
    foreach (string file in wanted.Where(f => !planted.Contains(f)))
    {
        string from = Path.Combine(root, file), to = Path.Combine(tree, file);
        Directory.CreateDirectory(Path.GetDirectoryName(to)!);
        if (!File.Exists(to) || !File.ReadAllBytes(from).AsSpan().SequenceEqual(File.ReadAllBytes(to)))
        {
            File.Copy(from, to, overwrite: true);
        }
    }

    wanted.UnionWith(["PlantedFault.cs", "native/planted_fault.h"]);

    // What was there before and is no more would still be compiled.
    foreach (string old in Directory.EnumerateFiles(tree, "*", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(tree, f)).Where(f => !f.StartsWith("artifacts", StringComparison.Ordinal) && !wanted.Contains(f)))
    {
        File.Delete(Path.Combine(tree, old));
    }
}

void Plant()
{
    foreach (IGrouping<string, Fault> file in all.GroupBy(f => f.File))
    {
        string text = File.ReadAllText(Path.Combine(root, file.Key));
        Place[] places = [.. file.GroupBy(f => f.Without).Select(p => new Place(text.IndexOf(p.Key, StringComparison.Ordinal), p.Key.Length, [.. p])).OrderBy(p => p.At).ThenByDescending(p => p.Length)];
        Write(file.Key, Planted(text, 0, text.Length, places, file.Key.EndsWith(".cs", StringComparison.Ordinal) ? "global::PlantedFault.Is" : "planted_fault"));
    }

    Write("PlantedFault.cs", $$"""
        internal static class PlantedFault
        {
            private static readonly int On = int.TryParse(System.Environment.GetEnvironmentVariable("{{Switch}}"), out int n) ? n : 0;

            public static bool Is(int fault) => On == fault;
        }
        """);
    Write("Directory.Build.targets", File.ReadAllText(Path.Combine(root, "Directory.Build.targets")).Replace("</Project>", """
          <PropertyGroup><NoWarn>$(NoWarn);CS0436;CS0162;CS8794</NoWarn></PropertyGroup>
          <ItemGroup><Compile Include="$(MSBuildThisFileDirectory)PlantedFault.cs" Visible="false" /></ItemGroup>
        </Project>
        """, StringComparison.Ordinal));
    Write(Path.Combine("native", "planted_fault.h"), $$"""
        #pragma once
        #ifdef __cplusplus
        #include <cstdlib>
        static const int planted_fault_on = std::getenv("{{Switch}}") != nullptr ? std::atoi(std::getenv("{{Switch}}")) : 0;
        static inline bool planted_fault(int n) { return planted_fault_on == n; }
        #endif
        """);
}

// What has not changed is not compiled again.
void Write(string file, string text)
{
    string path = Path.Combine(tree, file);
    Directory.CreateDirectory(Path.GetDirectoryName(path)!);
    if (!File.Exists(path) || File.ReadAllText(path) != text)
    {
        File.WriteAllText(path, text);
    }
}

// The text from one place to another with the faults of these places in it. Of places that lie within one another, the inner ones stay in the branch without the outer's faults.
static string Planted(string text, int from, int to, ReadOnlySpan<Place> places, string on)
{
    var planted = new StringBuilder();
    for (int i = 0; i < places.Length;)
    {
        Place place = places[i];
        int inner = i + 1;
        while (inner < places.Length && places[inner].At < place.At + place.Length)
        {
            inner++;
        }

        string without = Planted(text, place.At, place.At + place.Length, places[(i + 1)..inner], on);
        planted.Append(text, from, place.At - from).Append(Alternative(place.Faults, without, on));
        (i, from) = (inner, place.At + place.Length);
    }

    return planted.Append(text, from, to - from).ToString();
}

static string Alternative(Fault[] faults, string without, string on) => faults[0].Without.EndsWith(';')
    ? string.Concat(faults.Select(f => $"if ({on}({f.Number})) {{ {f.With} }} else ")) + $"{{ {without} }}"
    : "(" + string.Concat(faults.Select(f => $"{on}({f.Number}) ? ({f.With}) : ")) + $"({without}))";

Outcome Test(IEnumerable<string> names, int fault, int seconds, out string by, out string failing)
{
    List<string> command = [.. with.Split(' ', StringSplitOptions.RemoveEmptyEntries), tests, "-noLogo", "-noColor", "-reporter", "quiet", "-stopOnFail", "-result-xml", Path.Combine(tree, "artifacts", "result.xml")];
    if (fault == 0)
    {
        command.Remove("-stopOnFail");
    }

    foreach (string name in names)
    {
        command.AddRange(["-class", $"*.{name}"]);
    }

    File.Delete(Path.Combine(tree, "artifacts", "result.xml"));
    int code = Run(command[0], command[1..], new() { [Switch] = fault.ToString(CultureInfo.InvariantCulture) }, out failing, seconds);
    by = failing.Split('\n').FirstOrDefault(l => l.Contains("[FAIL]", StringComparison.Ordinal))?.Trim().Split(' ')[0].Split('(')[0] is { } line ? string.Join('.', line.Split('.')[^2..]) : $"exit code {code}";
    if (code == int.MinValue)
    {
        return Outcome.TimedOut;
    }

    // Tests that were left out or did not exist notice nothing.
    string xml = Path.Combine(tree, "artifacts", "result.xml");
    bool ran = File.Exists(xml) && System.Xml.Linq.XDocument.Load(xml).Descendants("assembly").Any(a => (int?)a.Attribute("passed") > 0 || (int?)a.Attribute("failed") > 0);
    return code != 0 && (ran || fault != 0) ? Outcome.Noticed : ran ? Outcome.Survived : Outcome.Noticed;
}

static int Run(string program, IEnumerable<string> arguments, Dictionary<string, string> environment, out string output, int seconds = 3600)
{
    var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
    foreach ((string name, string value) in environment)
    {
        start.Environment[name] = value;
    }

    using Process process = Process.Start(start)!;
    var text = new StringBuilder();
    process.OutputDataReceived += (_, e) => { lock (text) { text.Append(e.Data).Append('\n'); } };
    process.ErrorDataReceived += (_, e) => { lock (text) { text.Append(e.Data).Append('\n'); } };
    process.BeginOutputReadLine();
    process.BeginErrorReadLine();
    bool ended = process.WaitForExit(TimeSpan.FromSeconds(seconds));
    if (!ended)
    {
        process.Kill(entireProcessTree: true);
    }

    process.WaitForExit();
    lock (text)
    {
        output = text.ToString();
    }

    return ended ? process.ExitCode : int.MinValue;
}

/// <summary>A fault of the list.</summary>
internal sealed record Fault(int Number, string Name, string File, string[] Classes, string Without, string With);

/// <summary>A text of a file, and the faults that take its place.</summary>
internal sealed record Place(int At, int Length, Fault[] Faults);

/// <summary>What became of a fault.</summary>
internal enum Outcome
{
    /// <summary>A test failed, or the process did.</summary>
    Noticed,

    /// <summary>The tests did not end.</summary>
    TimedOut,

    /// <summary>All tests passed.</summary>
    Survived,
}
