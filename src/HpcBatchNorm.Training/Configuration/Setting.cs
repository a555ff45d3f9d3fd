using System.Globalization;

namespace HpcBatchNorm.Training.Configuration;

/// <summary>What kind of text a setting takes.</summary>
public enum SettingKind
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
public enum SettingGroup
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
/// One setting of <see cref="TrainingConfig"/> as text: the YAML key and the flag have the same name. Reading and writing are culture-invariant,
/// and <c>Set(Get())</c> restores the value exactly.
/// </summary>
public sealed record Setting
{
    /// <summary>The value that leaves a choice to the network.</summary>
    internal const string Automatic = "auto";

    private readonly Func<TrainingConfig, string> _get;
    private readonly Action<TrainingConfig, string> _set;

    private Setting(string name, SettingGroup group, SettingKind kind, string help, Func<TrainingConfig, string> get, Action<TrainingConfig, string> set)
    {
        (Name, Group, Kind, Help, _get, _set) = (name, group, kind, help, get, set);
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

    /// <summary>Other flags that mean the same, with their dashes.</summary>
    public IReadOnlyList<string> Aliases { get; init; } = [];

    /// <summary>The value as text.</summary>
    public string Get(TrainingConfig config) => _get(config);

    /// <summary>Sets the value from text.</summary>
    /// <exception cref="UserErrorException">The text is not a value of this setting; the message names it, what is allowed and what was found.</exception>
    public void Set(TrainingConfig config, string text)
    {
        try
        {
            _set(config, text.Trim());
        }
        catch (Exception error) when (error is FormatException or OverflowException)
        {
            throw new UserErrorException($"{Name}: expected {error.Message}, found '{text}'.", error);
        }
    }

    internal static Setting Text(string name, SettingGroup group, string help, Func<TrainingConfig, string> get, Action<TrainingConfig, string> set) =>
        new(name, group, SettingKind.Text, help, get, set);

    internal static Setting Switch(string name, SettingGroup group, string help, Func<TrainingConfig, bool> get, Action<TrainingConfig, bool> set) =>
        new(name, group, SettingKind.Switch, help, c => get(c) ? "true" : "false", (c, text) => set(c, text.ToLowerInvariant() switch
        {
            "true" or "on" or "yes" or "1" => true,
            "false" or "off" or "no" or "0" => false,
            _ => throw new FormatException("true or false"),
        }));

    internal static Setting OptionalSwitch(string name, SettingGroup group, string help, Func<TrainingConfig, bool?> get, Action<TrainingConfig, bool?> set) =>
        Choice(name, group, help, [Automatic, "true", "false"],
            c => get(c) switch { null => Automatic, true => "true", false => "false" },
            (c, text) => set(c, text == Automatic ? null : text == "true"));

    internal static Setting Choice(
        string name, SettingGroup group, string help, string[] choices, Func<TrainingConfig, string> get, Action<TrainingConfig, string> set) =>
        new(name, group, SettingKind.Choice, help, get, (c, text) => set(c, Array.Find(choices, choice => choice.Equals(text, StringComparison.OrdinalIgnoreCase))
            ?? throw new FormatException(string.Join(", ", choices[..^1]) + " or " + choices[^1])))
        {
            Choices = choices,
        };

    internal static Setting Choice<T>(string name, SettingGroup group, string help, Func<TrainingConfig, T> get, Action<TrainingConfig, T> set)
        where T : struct, Enum
    {
        string[] names = [.. Enum.GetNames<T>().Select(n => n.ToLowerInvariant())];
        return Choice(name, group, help, names, c => get(c).ToString().ToLowerInvariant(), (c, text) => set(c, Enum.Parse<T>(text, ignoreCase: true)));
    }

    internal static Setting Whole(string name, SettingGroup group, string help, long minimum, Func<TrainingConfig, long> get, Action<TrainingConfig, long> set) =>
        new(name, group, SettingKind.Number, help, c => get(c).ToString(CultureInfo.InvariantCulture), (c, text) =>
            set(c, long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value) && value >= minimum
                && (value <= int.MaxValue || minimum == long.MinValue || name is "steps" or "checkpoint-every")
                ? value
                : throw new FormatException(minimum == long.MinValue ? "a whole number" : FormattableString.Invariant($"a whole number of at least {minimum}"))));

    internal static Setting Real(
        string name, SettingGroup group, string help, double minimum, double maximum, Func<TrainingConfig, float> get, Action<TrainingConfig, float> set) =>
        new(name, group, SettingKind.Number, help, c => get(c).ToString(CultureInfo.InvariantCulture), (c, text) =>
            set(c, (float)ParseReal(text, minimum, maximum)));

    internal static Setting Real64(
        string name, SettingGroup group, string help, double minimum, double maximum, Func<TrainingConfig, double> get, Action<TrainingConfig, double> set) =>
        new(name, group, SettingKind.Number, help, c => get(c).ToString(CultureInfo.InvariantCulture), (c, text) =>
            set(c, ParseReal(text, minimum, maximum)));

    internal static Setting OptionalReal(
        string name, SettingGroup group, string help, double minimum, double maximum, Func<TrainingConfig, float?> get, Action<TrainingConfig, float?> set) =>
        new(name, group, SettingKind.Text, help, c => get(c)?.ToString(CultureInfo.InvariantCulture) ?? Automatic, (c, text) =>
            set(c, text.Equals(Automatic, StringComparison.OrdinalIgnoreCase) ? null : (float)ParseReal(text, minimum, maximum)));

    /// <summary>Positive numbers, rising, separated by commas; none for an empty text.</summary>
    internal static Setting Reals(
        string name, SettingGroup group, string help, Func<TrainingConfig, IReadOnlyList<double>> get, Action<TrainingConfig, IReadOnlyList<double>> set) =>
        new(name, group, SettingKind.Text, help, c => string.Join(',', get(c).Select(v => v.ToString(CultureInfo.InvariantCulture))), (c, text) =>
        {
            List<double> values = [];
            foreach (string part in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
            {
                values.Add(double.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && double.IsFinite(value)
                    && value > (values.Count == 0 ? 0 : values[^1]) ? value : throw new FormatException("rising numbers above 0, separated by commas"));
            }

            set(c, values);
        });

    private static double ParseReal(string text, double minimum, double maximum) =>
        double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && value >= minimum && value <= maximum
            ? value
            : throw new FormatException(double.IsPositiveInfinity(maximum)
                ? FormattableString.Invariant($"a number of at least {minimum}")
                : FormattableString.Invariant($"a number from {minimum} to {maximum}"));
}
