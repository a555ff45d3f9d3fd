using System.Globalization;
using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Training;

/// <summary>What kind of text a setting takes.</summary>
internal enum SettingKind
{
    /// <summary>Any text.</summary>
    Text,

    /// <summary>One of <see cref="Setting.Choices"/>.</summary>
    Choice,

    /// <summary>A number, whole or not.</summary>
    Number,

    /// <summary><c>true</c> or <c>false</c>; the bare flag means <c>true</c>.</summary>
    Switch,
}

/// <summary>What a setting changes, which decides whether two runs can be called the same.</summary>
internal enum SettingGroup
{
    /// <summary>The network's structure.</summary>
    Network,

    /// <summary>The optimizer and its schedule.</summary>
    Optimizer,

    /// <summary>Images and their order.</summary>
    Images,

    /// <summary>Where the numbers are computed; results differ by rounding at most.</summary>
    Machine,

    /// <summary>Length, logging, files.</summary>
    Run,
}

/// <summary>
/// One setting of <see cref="RunConfig"/> as text: the YAML key and the flag have the same name. Reading and writing are culture-invariant,
/// and <c>Set(Get())</c> restores the value exactly.
/// </summary>
internal sealed record Setting
{
    /// <summary>The value that leaves a choice to the network.</summary>
    internal const string Automatic = "auto";

    private readonly Func<RunConfig, string> _get;
    private readonly Func<RunConfig, string, RunConfig> _set;

    private Setting(string name, SettingGroup group, SettingKind kind, string help, Func<RunConfig, string> get, Func<RunConfig, string, RunConfig> set)
    {
        (Name, Group, Kind, Help, _get, _set) = (name, group, kind, help, get, set);
        DecidesNumbers = group is SettingGroup.Network or SettingGroup.Optimizer or SettingGroup.Images;
    }

    /// <summary>YAML key, and flag without its dashes: <c>learning-rate</c>.</summary>
    public string Name { get; }

    /// <summary>What it changes.</summary>
    public SettingGroup Group { get; }

    /// <summary>What kind of text it takes.</summary>
    public SettingKind Kind { get; }

    /// <summary>One line for <c>--help</c>.</summary>
    public string Help { get; }

    /// <summary>The allowed words of a <see cref="SettingKind.Choice"/>.</summary>
    public IReadOnlyList<string> Choices { get; private init; } = [];

    /// <summary>True where a program can give a value that as text would be refused.</summary>
    public bool HasRange
    {
        get => field || Kind is SettingKind.Number or SettingKind.Choice;
        private init;
    }

    /// <summary>Other flags that mean the same, with their dashes.</summary>
    public IReadOnlyList<string> Aliases { get; init; } = [];

    /// <summary>
    /// True when two runs that differ in it compute different numbers, rounding aside; such settings are what <see cref="TrainingSettings.Hash"/> is made of.
    /// Those of the network, the optimizer and the images do unless they say otherwise.
    /// </summary>
    public bool DecidesNumbers { get; init; }

    /// <summary>
    /// True for a setting that was added when runs had been hashed without it: it enters the hash only where it is not at its default, so that those runs
    /// keep their hash.
    /// </summary>
    public bool HashedWhereChanged { get; init; }

    /// <summary>
    /// For a setting whose choice could not be left to the network when runs were first hashed: the value they had then, which is hashed for
    /// <see cref="Automatic"/>, so that those runs keep their hash.
    /// </summary>
    public string? AutomaticWas { get; init; }

    /// <summary>False for what says where a run is, which a configuration file that makes a new run must not repeat.</summary>
    public bool InFiles { get; init; } = true;

    /// <summary>True when the value is the one a new configuration has.</summary>
    public bool IsDefault(RunConfig config) => Get(config) == Get(TrainingSettings.Defaults);

    /// <summary>The value as text.</summary>
    public string Get(RunConfig config) => _get(config);

    /// <summary>The value as the hash takes it.</summary>
    public string Hashed(RunConfig config) => Get(config) is var text && text == Automatic ? AutomaticWas ?? text : text;

    /// <summary>The configuration with the value that a text says; <paramref name="config"/> stays as it is.</summary>
    /// <exception cref="UserErrorException">The text is not a value of this setting; the message names it, what is allowed and what was found.</exception>
    public RunConfig Set(RunConfig config, string text)
    {
        try
        {
            return _set(config, text.Trim());
        }
        catch (Exception error) when (error is FormatException or OverflowException)
        {
            throw new UserErrorException($"{Name}: expected {error.Message}, found '{text}'.", error);
        }
    }

    internal static Setting Text(string name, SettingGroup group, string help, Func<RunConfig, string> get, Func<RunConfig, string, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, get, set);

    internal static Setting Switch(string name, SettingGroup group, string help, Func<RunConfig, bool> get, Func<RunConfig, bool, RunConfig> set) =>
        new(name, group, SettingKind.Switch, help, c => get(c) ? "true" : "false", (c, text) => set(c, text.ToLowerInvariant() switch
        {
            "true" or "on" or "yes" or "1" => true,
            "false" or "off" or "no" or "0" => false,
            _ => throw new FormatException("true or false"),
        }));

    internal static Setting OptionalSwitch(string name, SettingGroup group, string help, Func<RunConfig, bool?> get, Func<RunConfig, bool?, RunConfig> set) =>
        Choice(name, group, help, [Automatic, "true", "false"],
            c => get(c) switch { null => Automatic, true => "true", false => "false" },
            (c, text) => set(c, text == Automatic ? null : text == "true"));

    internal static Setting Choice(
        string name, SettingGroup group, string help, string[] choices, Func<RunConfig, string> get, Func<RunConfig, string, RunConfig> set) =>
        new(name, group, SettingKind.Choice, help, get, (c, text) => set(c, Array.Find(choices, choice => choice.Equals(text, StringComparison.OrdinalIgnoreCase))
            ?? throw new FormatException(string.Join(", ", choices[..^1]) + " or " + choices[^1])))
        {
            Choices = choices,
        };

    internal static Setting Choice<T>(string name, SettingGroup group, string help, Func<RunConfig, T> get, Func<RunConfig, T, RunConfig> set)
        where T : struct, Enum
    {
        string[] names = [.. Enum.GetNames<T>().Select(n => n.ToLowerInvariant())];
        return Choice(name, group, help, names, c => get(c).ToString().ToLowerInvariant(), (c, text) => set(c, Enum.Parse<T>(text, ignoreCase: true)));
    }

    internal static Setting Whole(string name, SettingGroup group, string help, int minimum, Func<RunConfig, int> get, Func<RunConfig, int, RunConfig> set) =>
        Whole(name, group, help, minimum, int.MaxValue, c => get(c), (c, v) => set(c, (int)v));

    /// <summary>A whole number of 64 bits: counts of steps, seeds.</summary>
    internal static Setting Whole64(string name, SettingGroup group, string help, long minimum, Func<RunConfig, long> get, Func<RunConfig, long, RunConfig> set) =>
        Whole(name, group, help, minimum, long.MaxValue, get, set);

    internal static Setting Real(
        string name, SettingGroup group, string help, double minimum, double maximum, Func<RunConfig, float> get, Func<RunConfig, float, RunConfig> set) =>
        new(name, group, SettingKind.Number, help, c => get(c).ToString(CultureInfo.InvariantCulture), (c, text) =>
            set(c, ParseSingle(text, minimum, maximum)));

    internal static Setting Real64(
        string name, SettingGroup group, string help, double minimum, double maximum, Func<RunConfig, double> get, Func<RunConfig, double, RunConfig> set) =>
        new(name, group, SettingKind.Number, help, c => get(c).ToString(CultureInfo.InvariantCulture), (c, text) =>
            set(c, ParseReal(text, minimum, maximum)));

    internal static Setting OptionalReal(
        string name, SettingGroup group, string help, double minimum, double maximum, Func<RunConfig, float?> get, Func<RunConfig, float?, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, c => get(c)?.ToString(CultureInfo.InvariantCulture) ?? Automatic, (c, text) =>
            set(c, text.Equals(Automatic, StringComparison.OrdinalIgnoreCase) ? null : ParseSingle(text, minimum, maximum)))
        {
            HasRange = true,
        };

    /// <summary>A length of time: <c>90s</c>, <c>15m</c>, <c>11h45m</c>, <c>2d</c>, <c>11:45:00</c>, <c>1-12:00:00</c> as queues write it, or 0.</summary>
    internal static Setting Duration(string name, SettingGroup group, string help, Func<RunConfig, TimeSpan> get, Func<RunConfig, TimeSpan, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, c => DurationText.Format(get(c)), (c, text) => set(c, DurationText.Parse(text)))
        {
            HasRange = true,
        };

    /// <summary>Positive numbers, rising, separated by commas; none for an empty text.</summary>
    internal static Setting Reals(
        string name, SettingGroup group, string help, Func<RunConfig, IReadOnlyList<double>> get, Func<RunConfig, IReadOnlyList<double>, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, c => string.Join(',', get(c).Select(v => v.ToString(CultureInfo.InvariantCulture))), (c, text) =>
        {
            List<double> values = [];
            foreach (string part in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
            {
                values.Add(double.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && double.IsFinite(value)
                    && value > (values.Count == 0 ? 0 : values[^1]) ? value : throw new FormatException("rising numbers above 0, separated by commas"));
            }

            return set(c, values);
        })
        {
            HasRange = true,
        };

    /// <summary>Names or patterns of them, separated by commas; none for an empty text.</summary>
    internal static Setting Patterns(
        string name, SettingGroup group, string help, Func<RunConfig, IReadOnlyList<string>> get, Func<RunConfig, IReadOnlyList<string>, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, c => string.Join(',', get(c)), (c, text) => set(c, Split(text)));

    /// <summary>Patterns with a factor each, <c>PATTERN=FACTOR</c>, separated by commas; none for an empty text.</summary>
    internal static Setting RateFactors(
        string name, SettingGroup group, string help, Func<RunConfig, IReadOnlyList<RateFactor>> get, Func<RunConfig, IReadOnlyList<RateFactor>, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, c => string.Join(',', get(c).Select(f => string.Create(CultureInfo.InvariantCulture, $"{f.Pattern}={f.Factor}"))), (c, text) =>
            set(c, [.. Split(text).Select(part => part.LastIndexOf('=') is var at and > 0
                && float.TryParse(part.AsSpan(at + 1), NumberStyles.Float, CultureInfo.InvariantCulture, out float factor) && factor >= 0 && float.IsFinite(factor)
                    ? new RateFactor(part[..at].Trim(), factor)
                    : throw new FormatException("PATTERN=FACTOR, separated by commas, with factors of 0 or more"))]));

    private static string[] Split(string text) => text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    /// <summary>A value for every channel of the images, or one for all; none for an empty text.</summary>
    internal static Setting Channels(
        string name, SettingGroup group, string help, bool positive, Func<RunConfig, IReadOnlyList<float>?> get, Func<RunConfig, IReadOnlyList<float>?, RunConfig> set) =>
        new(name, group, SettingKind.Text, help, c => string.Join(',', (get(c) ?? []).Select(v => v.ToString(CultureInfo.InvariantCulture))), (c, text) =>
        {
            float[] values = [.. text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(Parse)];
            return values.Length is 0 or 1 or 3 ? set(c, values.Length == 0 ? null : values) : throw Expected();

            float Parse(string part) => float.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out float value) && float.IsFinite(value) && (value > 0 || !positive)
                ? value
                : throw Expected();

            FormatException Expected() => new($"one number{(positive ? " above 0" : "")} or three, separated by commas");
        });

    internal static Setting Whole(
        string name, SettingGroup group, string help, long minimum, long maximum, Func<RunConfig, long> get, Func<RunConfig, long, RunConfig> set) =>
        new(name, group, SettingKind.Number, help, c => get(c).ToString(CultureInfo.InvariantCulture), (c, text) =>
            long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value) && value >= minimum && value <= maximum
                ? set(c, value)
                : throw new FormatException(minimum == long.MinValue ? "a whole number"
                    : value > maximum ? FormattableString.Invariant($"a whole number from {minimum} to {maximum}")
                    : FormattableString.Invariant($"a whole number of at least {minimum}")));

    /// <summary>Infinity is no number of anything here, and what single precision cannot hold would become it.</summary>
    private static float ParseSingle(string text, double minimum, double maximum) => (float)ParseReal(text, minimum, Math.Min(maximum, float.MaxValue), double.IsPositiveInfinity(maximum));

    private static double ParseReal(string text, double minimum, double maximum) =>
        ParseReal(text, minimum, Math.Min(maximum, double.MaxValue), double.IsPositiveInfinity(maximum));

    private static double ParseReal(string text, double minimum, double maximum, bool isUnbounded) =>
        double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && value >= minimum && value <= maximum
            ? value
            : throw new FormatException(isUnbounded
                ? FormattableString.Invariant($"a {(value > maximum ? "finite " : "")}number of at least {minimum}")
                : FormattableString.Invariant($"a number from {minimum} to {maximum}"));
}
